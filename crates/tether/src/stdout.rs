//! What a command says on standard output.
//!
//! `println!` panics where nobody reads any more, so nothing here uses it: a lint in `main.rs`
//! keeps it so. A closed standard output is told apart from every other pipe that breaks, which is
//! a failure like any.

use std::fmt::Display;
use std::io::{self, Write};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct StdoutError(io::Error);

impl StdoutError {
    /// Whether whoever read it has gone: `tether fleet | head` ends when `head` has enough.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes bytes, at once.
pub(crate) fn write(bytes: impl AsRef<[u8]>) -> Result<(), StdoutError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes.as_ref())
        .and_then(|()| stdout.flush())
        .map_err(StdoutError)
}

/// Writes a line.
pub(crate) fn line(text: impl Display) -> Result<(), StdoutError> {
    write(format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_is_gone_counts_as_closed() {
        assert!(StdoutError(io::ErrorKind::BrokenPipe.into()).is_closed());
        assert!(!StdoutError(io::ErrorKind::StorageFull.into()).is_closed());
    }
}
