//! Model artifacts: their manifests, who is trusted to sign them, and the check before use. (ART-1)
//!
//! An artifact is a directory that holds its files and [`MANIFEST_FILE`], the sealed
//! [`Manifest`](tether_wire::Manifest). The BLAKE3 of the sealed bytes is the model's digest: it
//! names the content of every file and who vouches for it.
//!
//! Nothing here looks inside weights or tokenizers of an artifact that is to be *used*: that is
//! the engine's work, in its own process, after [`verify`] said that the bytes are the
//! publisher's. Only [`pack`], run by the publisher on files of their own, reads headers, and
//! those through bounded readers.
//!
//! # Layout
//!
//! * [`manifest_file`](read_manifest) – the sealed manifest on disk, and [`Trust`]
//! * [`verify`] – every listed file against the manifest; the only maker of [`VerifiedArtifact`]
//! * [`complete`] – whether all of them are there at least
//! * `touched` – whether they are still those that were verified
//! * [`pack`], [`sign`] – what a publisher does
//! * [`Source`] – where artifacts come from; [`DirectorySource`] is a folder of them
//! * [`Store`] – the worker's own copies, by digest, within a budget
//! * `place` – where a fetch writes, so that it can be taken up again
//! * `evict` – what goes when there is no room
//! * `damage` – whether a copy that was refused is itself to blame
//! * [`adapter`] – LoRA adapters that can be applied exactly
//! * `view` – a folder with the verified files and nothing else, for the engine
//! * `detect` – format, tokenizer and context of files that are to be packed
//! * `regular` – opening and hashing files that are files
//! * `decoders` – private decoders for the fuzz targets, only with the feature `testing`
#![forbid(unsafe_code)]

pub mod adapter;
mod damage;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
mod detect;
mod error;
mod evict;
mod manifest_file;
mod pack;
mod place;
mod regular;
mod source;
mod store;
mod touched;
mod verify;
mod view;

pub use error::ArtifactError;
pub use manifest_file::{MANIFEST_FILE, Trust, read_manifest, sign};
pub use pack::{Base, PackOptions, Packed, pack};
pub use place::{Fetching, Place};
pub use regular::Progress;
pub use source::{DirectorySource, Offered, Source};
pub use store::{Store, Stored};
pub use verify::{MAX_UNLISTED, VerifiedArtifact, complete, verify, verify_until};
pub use view::{ADAPTER_FOLDER, BASE_FOLDER};
