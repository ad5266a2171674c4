//! The rules of presence, one file each; the story is in the names.

mod bounds;
mod cards;
mod checking;
mod clones;
mod freshness;
mod interleavings;
mod life;
mod model;
mod order;
mod random;
#[path = "../support/mod.rs"]
mod support;
