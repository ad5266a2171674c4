//! Keys and grants in files: what an operator does. (NET-1, NET-8)
//!
//! * [`key_file`] – a node's secret key
//! * [`grant_file`] – a sealed grant, as text that can be mailed
//! * [`mesh_id`] – whose operator's key a key is
//! * [`mesh_dir`] – the operator's folder
//! * [`issuer`] – who gives and takes back: grants, invites, revocations
//! * [`register`] – what was issued and revoked
//! * [`rotation`] – a node's key replaced by a new one
//! * [`control_file`] – revocations that travel by hand

pub(crate) mod control_file;
pub(crate) mod grant_file;
pub(crate) mod issuer;
pub(crate) mod key_file;
pub(crate) mod mesh_dir;
pub(crate) mod mesh_id;
pub(crate) mod register;
pub(crate) mod rotation;

use std::path::PathBuf;
use tether_wire::MeshId;

/// Why a key or grant in a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("{path} exists already and is not overwritten: choose another path, or move it away")]
    Exists { path: PathBuf },
    #[error(
        "{path} holds a secret and can be read by others (mode {mode:04o}): run `chmod 600 {path}`, or make a new key if somebody may have read it"
    )]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("{path} is not {what}: {why}")]
    Malformed {
        path: PathBuf,
        what: &'static str,
        why: String,
    },
    #[error("{doing} {path}: {source}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{key} is missing, but {trace} shows that this mesh was made before: without its key nothing can be granted in it. Restore the key, or start a new mesh in a new folder"
    )]
    LostOperatorKey { key: PathBuf, trace: PathBuf },
    #[error(
        "{key} is the key of mesh {own}, but {place} says {said}: give a key and a mesh id that belong together"
    )]
    OtherMesh {
        key: PathBuf,
        own: MeshId,
        place: String,
        said: MeshId,
    },
    #[error("it cannot be issued: {0}")]
    Issue(String),
    #[error("it cannot be revoked: {0}")]
    Revoke(String),
    #[error("the key cannot be replaced: {0}")]
    Rotate(String),
}

impl AuthorityError {
    /// Whether the file is not there, as against one that cannot be read.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    /// For `map_err`.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A clock before 1970 makes every grant "not yet" valid, which says so.
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// The lines of a text that are not empty and no comments.
fn payloads(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The one line of a text that is not empty and no comment.
fn payload(text: &str) -> Result<&str, String> {
    let mut lines = payloads(text);
    let line = lines.next().ok_or("it is empty")?;
    match lines.next() {
        None => Ok(line),
        Some(_) => Err("it has more than one line besides comments".to_owned()),
    }
}

/// Reads a small text file; more than `limit` bytes are refused before they are read.
fn read_text(path: &std::path::Path, limit: u64) -> Result<String, AuthorityError> {
    use std::io::Read;
    let fail = AuthorityError::io;
    let file = std::fs::File::open(path).map_err(fail("cannot read", path))?;
    let mut text = String::new();
    let read = file
        .take(limit + 1)
        .read_to_string(&mut text)
        .map_err(fail("cannot read", path))?;
    if read as u64 > limit {
        return Err(AuthorityError::Malformed {
            path: path.to_owned(),
            what: "a key or grant",
            why: format!("it is larger than {limit} bytes"),
        });
    }
    Ok(text)
}
