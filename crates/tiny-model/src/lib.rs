//! Tether's small model: a language model of under a megabyte that answers plain questions,
//! so that the whole mesh can be run and tested offline.
//!
//! It knows capitals, sums up to 20 + 20, opposites and a little small talk, and counts:
//! `Count to 200.` gives all 200 numbers in 691 tokens, long enough to interrupt. Where to stop is
//! what it knows least well: up to 50 and at 200 it is right, in between it often stops at another
//! number (`Count to 100.` is the one question of the exam that it fails). It is packed, signed,
//! verified and served like any other artifact.
//!
//! # Layout
//! - [`files`] is the committed model, [`questions::exam`] what it must answer.
//! - [`template`] has the special tokens and the chat template, [`facts`] what is taught.
//! - [`gguf`] and [`reference`](mod@reference) read and run the file without a tensor library, one token at a time.
//! - [`random_hf`] writes a second, untrained model in Hugging Face layout, [`random_lora`] an
//!   adapter for it, [`random_gguf`] a model of any size in GGUF.
//! - `train` (feature `train`, off by default) makes the model with candle. It and the binary are
//!   the only users of candle here, so a dependent pays for the embedded bytes alone.
//!
//! # Making it again
//! ```text
//! cargo run --release -p tether-tiny-model --features train -- train --out crates/tiny-model/model
//! cargo run --release -p tether-tiny-model --features train -- check crates/tiny-model/model
//! ```
//! A step takes 0.4 s on two cores with little else to do, the 2,400 steps some 16 minutes. glibc gives
//! large tensors back to the kernel and fetches them again; with
//! `MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000` in the environment it keeps them.
//!
//! The draws are seeded, but floating-point sums differ between machines: check its answers, not its bytes.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod embedded;
pub mod facts;
pub mod gguf;
pub mod questions;
pub mod random_gguf;
pub mod random_hf;
pub mod random_lora;
pub mod reference;
pub mod shape;
pub mod template;
#[cfg(feature = "train")]
pub mod train;

pub use embedded::{EmbeddedFile, GGUF_FILE, NAME, VERSION, file, files};
pub use random_gguf::{RANDOM_GGUF_FILE, write_random_gguf};
pub use random_hf::{write_random_hf, write_random_hf_of};
pub use random_lora::write_random_lora;
