//! Thousands of simulated nodes, hours in seconds.
#![forbid(unsafe_code)]
