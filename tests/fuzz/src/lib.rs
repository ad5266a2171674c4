//! Fuzz targets for every decoder of bytes that a stranger can send, as plain functions.
//!
//! A target is a function from bytes to a [`Verdict`]; it panics where a promise is broken. The same
//! functions run in two ways:
//!
//! * `cargo test -p tether-fuzz`, and with it `cargo test --workspace`, runs each over its committed
//!   corpus in `tests/fuzz/corpus/<target>`: the seeds, and whatever was found once;
//! * `ops/fuzz/run` builds them with coverage instrumentation and hands them to libFuzzer.
//!
//! # Layout
//!
//! * [`targets`] – the list: to add a target is to add an entry there
//! * [`seeds`] – where the committed seeds come from: the golden vectors of the wire, and samples
//! * `sealed` – kinds of signed messages; `message` – the other messages of the wire; `codec` – the
//!   bounds of the codec itself; `text` – ids as people write them
//! * `membership` – control messages and tokens
//! * `spread` – what orchestrators take from nodes and from each other
//! * `net`, `gateway`, `artifact`, `worker` – what those crates read; their private decoders are in
//!   their modules `decoders`, with the feature `testing`
#![forbid(unsafe_code)]

mod artifact;
mod choices;
mod codec;
mod gateway;
mod known;
mod membership;
mod message;
mod net;
mod operator;
mod sealed;
pub mod seeds;
mod spread;
pub mod targets;
mod text;
mod worker;

pub use targets::{TARGETS, target};

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They were taken for a message, and what is promised of it was checked.
    Accepted,
    /// They were refused.
    Refused,
}

impl Verdict {
    /// Accepted, where there is something.
    #[must_use]
    pub fn of(accepted: bool) -> Self {
        if accepted {
            Self::Accepted
        } else {
            Self::Refused
        }
    }
}

/// One decoder, or a few that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Runs the decoder, and panics where a promise is broken.
    pub run: fn(&[u8]) -> Verdict,
    /// What it covers: names of types, and of messages as decoders call them in their errors. A test
    /// looks for decoders that are in no such list.
    pub covers: &'static [&'static str],
    /// Makes its seeds.
    pub seeds: fn() -> Vec<seeds::Seed>,
}
