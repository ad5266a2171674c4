//! The engine process.

use std::process::ExitCode;

/// Runs the engine process: the main of `tether engine`.
#[must_use]
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
