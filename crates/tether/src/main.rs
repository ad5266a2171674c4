//! `tether`: the one binary. Command line, configuration, and the wiring of the roles.
//!
//! # Layout
//!
//! * [`cli`] – the command line; each command's arguments are beside its code in [`commands`]
//! * [`authority`] – keys and grants in files: what an operator does
//! * [`files`] – private and atomic files
//!
//! This is the only crate that sees all roles. It decides nothing about requests: gateway,
//! orchestrator and worker meet on the wire, also when `up` runs them in one process.
#![forbid(unsafe_code)]

mod authority;
mod cli;
mod commands;
mod exit;
mod files;
mod logging;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::report(cli::Cli::parse().run())
}
