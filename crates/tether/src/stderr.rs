//! What a process tells a person on standard error.
//!
//! Nobody is owed these lines: they go with the work and are not the work. `eprintln!` panics where
//! they cannot be written – whoever read the pipe has gone, the disk of the log is full – and would
//! take a mesh down over a line that nobody misses, so nothing here uses it: a lint in `main.rs`
//! keeps it so. What was asked for is on standard output, where a failure counts: see `stdout`.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line, if anybody takes it.
pub(crate) fn line(text: impl Display) {
    write(format!("{text}\n"));
}

/// Writes text without an end of line, if anybody takes it: a prompt.
pub(crate) fn write(text: impl AsRef<str>) {
    // At once, so that the lines of several processes do not mix.
    let _ = io::stderr().lock().write_all(text.as_ref().as_bytes());
}
