//! Why an artifact is not used, one variant for each thing that can be wrong with it.

use std::io;
use std::path::{Path, PathBuf};
use tether_wire::{Digest, NodeId};

/// Why an artifact was refused, or could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is no manifest.
    #[error("{} holds no tether.manifest: pack and sign it with `tether artifact pack`", .0.display())]
    MissingManifest(PathBuf),
    /// The manifest is not a sealed manifest of a version and form that is known here.
    #[error("the manifest is malformed: {0}")]
    ManifestMalformed(String),
    /// The manifest's signature does not fit its bytes.
    #[error("the manifest's signature by {0} is wrong: the file was changed after it was signed")]
    BadSignature(NodeId),
    /// The manifest is signed by somebody who is not trusted here; nothing of it was parsed.
    #[error(
        "the manifest is signed by {0}, who is not one of the trusted publishers: add the key to `trusted_publishers` if it should be"
    )]
    UntrustedPublisher(NodeId),
    /// A rightly signed manifest, but not the one that was asked for.
    #[error("the artifact's digest is {found}, not {expected}")]
    WrongDigest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// A file of the manifest is not there.
    #[error("the file {0} is missing")]
    MissingFile(String),
    /// A path is a link, a directory, a device or the like.
    #[error(
        "{0} is not a regular file inside the artifact: links and special files are refused, put a copy there"
    )]
    NotARegularFile(String),
    /// A file has another size than its manifest says.
    #[error("the file {path} has {found} bytes, its manifest says {expected}")]
    WrongSize {
        /// Path inside the artifact.
        path: String,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A file has the right size and another content.
    #[error("the file {0} is corrupt: its content has another BLAKE3 than its manifest says")]
    CorruptFile(String),
    /// A format that is not loaded here, or not one that can be packed.
    #[error("{0}")]
    UnsupportedFormat(String),
    /// The file system refused.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its words.
        error: io::Error,
    },
}

impl ArtifactError {
    /// A stable name, for programs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingManifest(_) => "missing-manifest",
            Self::ManifestMalformed(_) => "manifest-malformed",
            Self::BadSignature(_) => "bad-signature",
            Self::UntrustedPublisher(_) => "untrusted-publisher",
            Self::WrongDigest { .. } => "wrong-digest",
            Self::MissingFile(_) => "missing-file",
            Self::NotARegularFile(_) => "not-a-regular-file",
            Self::WrongSize { .. } => "wrong-size",
            Self::CorruptFile(_) => "corrupt-file",
            Self::UnsupportedFormat(_) => "unsupported-format",
            Self::Io { .. } => "io",
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}
