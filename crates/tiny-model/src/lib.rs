//! Tether's small model: a language model of under a megabyte that answers plain questions,
//! so that the whole mesh can be run and tested offline.
//!
//! It knows capitals, sums up to 20 + 20, opposites and a little small talk, and counts to 200
//! (`Count to 200.` gives some 690 tokens, long enough to interrupt). It is packed, signed,
//! verified and served like any other artifact; nothing in Tether knows it by name except
//! the commands that offer it.
//!
//! # Layout
//! - [`files`] is the committed model, [`questions::exam`] what it must answer.
//! - [`template`] has the special tokens and the chat template, [`facts`] what is taught.
//! - [`gguf`] and [`reference`] read and run the file without a tensor library, one token at a time.
//! - [`random_hf`] writes a second, untrained model in Hugging Face layout.
//! - `train` (feature `train`, off by default) makes the model with candle. It and the binary are
//!   the only users of candle here, so a dependent pays for the embedded bytes alone.
//!
//! # Making it again
//! ```text
//! cargo run --release -p tether-tiny-model --features train -- train --out crates/tiny-model/model
//! cargo run --release -p tether-tiny-model --features train -- check crates/tiny-model/model
//! ```
//! It takes some 7 minutes on two idle cores. glibc gives every large tensor back to the kernel and
//! fetches it again; `MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000` in the
//! environment spares a third of the time.
//!
//! The draws are seeded, but floating-point sums differ between machines: check its answers, not its bytes.
#![forbid(unsafe_code)]

mod embedded;
pub mod facts;
pub mod gguf;
pub mod questions;
pub mod random_hf;
pub mod reference;
pub mod shape;
pub mod template;
#[cfg(feature = "train")]
pub mod train;

pub use embedded::{EmbeddedFile, GGUF_FILE, NAME, VERSION, file, files};
pub use random_hf::write_random_hf;
