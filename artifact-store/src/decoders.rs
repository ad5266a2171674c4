//! This crate's private decoders of outside bytes, for the fuzz targets (feature `testing`).

use crate::detect::{config, gguf};
use crate::error::ArtifactError;
use crate::manifest_file::{Trust, open_sealed};
use tether_wire::{Digest, Manifest, Signed, Verified};

/// What is kept of the header of a GGUF file: context and licence.
pub fn gguf(bytes: &[u8]) -> Option<(Option<u32>, Option<String>)> {
    let header = gguf::read(bytes).ok()?;
    Some((header.context_tokens, header.licence))
}

/// Whether an adapter of these two files is applied.
pub fn adapter(config: &[u8], weights: &[u8]) -> bool {
    crate::adapter::check(config, weights).is_ok()
}

/// The context that a `config.json` names.
pub fn config(bytes: &[u8]) -> Option<Option<u32>> {
    config::read(bytes).ok().map(|config| config.context_tokens)
}

/// A sealed manifest, as it is read from an artifact.
pub fn manifest(
    sealed: &[u8],
    trust: &Trust,
) -> Result<(Digest, Verified<Manifest>), ArtifactError> {
    let is_trusted = |signer: &_| trust.publishers.contains(signer);
    open_sealed(&Signed::from_bytes(sealed), is_trusted)
}
