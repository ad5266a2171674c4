//! `tether`: the one binary. Command line, configuration, and the wiring of the roles.
//!
//! # Layout
//!
//! * [`cli`] – the command line; each command's arguments are beside its code in [`commands`]
//! * [`config`] – one TOML file per process: read, overridden and validated before a port is bound
//! * [`roles`] – runs one role as a process: bootstrap, orchestrator, gateway, worker
//! * [`up`] – a whole mesh on one machine
//! * [`engine_program`] – which program runs a worker's engines
//! * [`authority`] – keys and grants in files: what an operator does
//! * [`files`] – private and atomic files
//! * [`mod@bench`] – what `ops/bench/run` measures
//! * [`signals`], [`exit`], [`logging`], [`stdout`], [`mod@stderr`] – the edges of a process
//!
//! This is the only crate that sees all roles. It decides nothing about requests: gateway,
//! orchestrator and worker meet on the wire, also when `up` runs them in one process.
#![forbid(unsafe_code)]
// They panic where nobody reads: see `stdout` and `stderr`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod authority;
mod bench;
mod cli;
mod commands;
mod config;
mod engine_program;
mod exit;
mod files;
mod logging;
mod roles;
mod signals;
mod stderr;
mod stdout;
mod up;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::report(cli::Cli::parse().run())
}
