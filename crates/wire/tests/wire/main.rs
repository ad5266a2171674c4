//! The wire as others see it: committed bytes of each message, and properties of its decoders.

mod golden;
mod limits;
mod properties;
mod samples;
