//! Why an artifact is not used, one variant for each thing that can be wrong with it.

use std::io;
use std::path::{Path, PathBuf};
use tether_wire::{Digest, ModelRef, NodeId};

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
    /// No source has it.
    #[error(
        "no source has {0}, signed by a trusted publisher: name a folder that holds it in `sources`"
    )]
    NotFound(String),
    /// What a source has is not what its manifest says.
    #[error("the source {name}: {error}")]
    Source {
        /// The source's name.
        name: String,
        /// What is wrong with it.
        error: Box<ArtifactError>,
    },
    /// An adapter's base is nowhere to be found.
    #[error(
        "its base {0} is in no folder of `models`, in no source and not in the store: name a folder that holds it in `models` or `sources`"
    )]
    BaseMissing(Digest),
    /// An adapter's base is nothing that an adapter is applied to.
    #[error("its base {base} {why}")]
    BaseUnsupported {
        /// Name and version of the base.
        base: ModelRef,
        /// Why not.
        why: &'static str,
    },
    /// There is no room on the disk; nothing half was left.
    #[error(
        "the disk of {} is full: {needed} bytes are needed and {free} are free", .path.display()
    )]
    DiskFull {
        /// The store's folder.
        path: PathBuf,
        /// Bytes that were to be written.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// There is no room in the store's budget, even without everything that may go.
    #[error(
        "the artifact has {needed} bytes; the disk budget is {budget}, of which {kept} are in use or pinned"
    )]
    OverBudget {
        /// Bytes of the artifact.
        needed: u64,
        /// The budget.
        budget: u64,
        /// Bytes of what must stay.
        kept: u64,
    },
    /// Another process has the store.
    #[error("the store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A fetch or a check was given up by who asked for it.
    #[error("it was given up by who asked for it")]
    Cancelled,
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
            Self::NotFound(_) => "not-found",
            Self::Source { .. } => "source-damaged",
            Self::BaseMissing(_) => "base-missing",
            Self::BaseUnsupported { .. } => "base-unsupported",
            Self::DiskFull { .. } => "disk-full",
            Self::OverBudget { .. } => "over-disk-budget",
            Self::Locked(_) => "store-locked",
            Self::Cancelled => "cancelled",
            Self::Io { .. } => "io",
        }
    }

    /// Whether it may be otherwise at the next try: the disk's fault or the source's, not the
    /// artifact's.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Io { .. }
                | Self::DiskFull { .. }
                | Self::NotFound(_)
                | Self::Source { .. }
                | Self::BaseMissing(_)
                | Self::Cancelled
        )
    }

    /// The same, where it came of a fetch: what is wrong with the files of a source may be mended there.
    #[must_use]
    pub fn of_source(self, name: String) -> Self {
        if self.is_of_files() {
            let error = Box::new(self);
            return Self::Source { name, error };
        }
        self
    }

    /// Whether files are not what the manifest beside them says.
    pub(crate) fn is_of_files(&self) -> bool {
        matches!(
            self,
            Self::CorruptFile(_)
                | Self::WrongSize { .. }
                | Self::MissingFile(_)
                | Self::NotARegularFile(_)
        )
    }

    /// The file system refused. For sources.
    #[must_use]
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}
