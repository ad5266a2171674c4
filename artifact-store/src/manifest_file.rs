//! The sealed manifest on disk: read within bounds, trusted before it is parsed, written whole.

use crate::error::ArtifactError;
use crate::pack::Packed;
use crate::regular;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tether_wire::{
    Digest, Manifest, MeshId, NodeId, NodeKey, Signable, Signed, Verified, VerifyError,
};

/// Name of the manifest inside an artifact.
pub const MANIFEST_FILE: &str = "tether.manifest";

/// A manifest is the same in every mesh, so none is part of what is signed.
const NO_MESH: MeshId = MeshId([0; 32]);

/// Whose manifests are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys of the publishers. Nobody is believed by default.
    pub publishers: BTreeSet<NodeId>,
}

impl Trust {
    /// Trust in these publishers and nobody else.
    pub fn in_publishers(publishers: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            publishers: publishers.into_iter().collect(),
        }
    }
}

/// Reads the manifest of the artifact in `dir`. Size, then the signer, then the signature are
/// checked before a byte of it is parsed. Returns its digest too.
///
/// # Errors
/// The first thing that is wrong.
pub fn read_manifest(
    dir: &Path,
    trust: &Trust,
) -> Result<(Digest, Verified<Manifest>), ArtifactError> {
    open_sealed(&read_sealed(dir)?, |signer| {
        trust.publishers.contains(signer)
    })
}

/// The same, whoever signed it.
pub(crate) fn read_any(dir: &Path) -> Result<(Digest, Verified<Manifest>), ArtifactError> {
    open_sealed(&read_sealed(dir)?, |_| true)
}

/// Signs the manifest in `dir` again, with another key: who had `tether.manifest` before vouches
/// for it no longer, the holder of `key` does. The files are not read; verify them first. The
/// digest changes, since it names the publisher too.
///
/// # Errors
/// When there is no whole manifest, or it cannot be written.
pub fn sign(dir: &Path, key: &NodeKey) -> Result<Packed, ArtifactError> {
    let (_, manifest) = open_sealed(&read_sealed(dir)?, |_| true)?;
    write(dir, manifest.into_inner(), key)
}

/// Seals a manifest and puts it in place in one step: a reader sees the old one or the new one.
pub(crate) fn write(
    dir: &Path,
    manifest: Manifest,
    key: &NodeKey,
) -> Result<Packed, ArtifactError> {
    let sealed = Signed::seal(key, &NO_MESH, &manifest)
        .map_err(|error| ArtifactError::ManifestMalformed(error.to_string()))?;
    let path = dir.join(MANIFEST_FILE);
    let io = |error| ArtifactError::io(&path, error);
    let mut file = tempfile::Builder::new()
        .prefix(".tether.manifest.")
        .tempfile_in(dir)
        .map_err(io)?;
    file.write_all(sealed.as_bytes()).map_err(io)?;
    // A manifest is public; the temporary file was made for us alone.
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| ArtifactError::io(dir, error))?;
    Ok(Packed {
        digest: Digest::of(sealed.as_bytes()),
        publisher: key.id(),
        manifest,
    })
}

pub(crate) fn read_sealed(dir: &Path) -> Result<Signed<Manifest>, ArtifactError> {
    let (file, size) = regular::open(dir, MANIFEST_FILE).map_err(|error| match error {
        ArtifactError::MissingFile(_) => ArtifactError::MissingManifest(dir.to_owned()),
        other => other,
    })?;
    let limit = Manifest::MAX_BYTES as u64;
    if size > limit {
        return Err(ArtifactError::ManifestMalformed(format!(
            "it is {size} bytes, at most {limit} are allowed"
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may grow while it is read; one byte more than the limit is enough to be refused below.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ArtifactError::io(&dir.join(MANIFEST_FILE), error))?;
    Ok(Signed::from_bytes(bytes))
}

pub(crate) fn open_sealed(
    sealed: &Signed<Manifest>,
    is_trusted: impl Fn(&NodeId) -> bool,
) -> Result<(Digest, Verified<Manifest>), ArtifactError> {
    let malformed = |why: &dyn std::fmt::Display| ArtifactError::ManifestMalformed(why.to_string());
    let version = sealed.as_bytes().first().copied();
    if version != Some(tether_wire::envelope::ENVELOPE_VERSION) {
        return Err(malformed(&"it is not a sealed manifest of a known version"));
    }
    let signer = sealed
        .claimed_signer()
        .ok_or_else(|| malformed(&"it ends before its signer's key"))?;
    if !is_trusted(&signer) {
        return Err(ArtifactError::UntrustedPublisher(signer));
    }
    let manifest = sealed.verify(&NO_MESH).map_err(|error| match error {
        VerifyError::BadSignature { signer, .. } => ArtifactError::BadSignature(signer),
        other => malformed(&other),
    })?;
    Ok((Digest::of(sealed.as_bytes()), manifest))
}
