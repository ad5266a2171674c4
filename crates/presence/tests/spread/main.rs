//! Orchestrators wired back to back: what reaches whom, and what heals.

mod bounds;
mod heal;
mod mesh;
mod newcomer;
mod quiet;
#[path = "../support/mod.rs"]
mod support;
mod world;
