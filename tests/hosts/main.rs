//! Hosts that differ: each node in a network of its own, as on machines in several places. (NET-4, NET-5)
//!
//! What a mesh on one machine cannot show: a partition and how it heals, lost packets, an address
//! that changes, a router that lets nothing in. See [`lan`] for what that takes; where this machine
//! cannot make such hosts, each scenario says so by name.

mod address;
mod inside;
mod lan;
mod loss;
mod mesh;
mod nat;
#[path = "../support/operator.rs"]
mod operator;
mod partition;
#[path = "../support/mod.rs"]
mod support;
