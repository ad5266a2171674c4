//! The rules of presence, one file each; the story is in the names.

mod bounds;
mod cards;
mod checking;
mod clones;
mod freshness;
mod life;
mod order;
#[path = "../support/mod.rs"]
mod support;
