//! Who is there: presence and its spread among orchestrators, as pure state machines.
#![forbid(unsafe_code)]

pub mod plan;
