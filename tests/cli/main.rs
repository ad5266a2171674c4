//! What a person meets on the command line: help, exit codes, private files, clear errors. One
//! binary for all of it, since linking one takes longer than running them.

mod artifacts;
mod authority;
mod bench;
mod commands;
mod configuration;
mod environment;
mod fleet;
mod folders;
mod membership;
mod operator;
mod policies;
mod standard_error;
mod store;
#[path = "../support/mod.rs"]
mod support;
