//! The orchestrators that a node was linked with, on disk: it finds them again without the DHT, and
//! whoever crowds the control topic cannot hide them.

use crate::disk;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_presence::uplinks::MAX_PROVEN;
use tether_wire::NodeId;
use tether_wire::record::MAX_RECORD_ADDRESSES;

/// Name of the file inside the folder.
const FILE: &str = "orchestrators.json";
/// Version of its form.
const VERSION: u32 = 1;
/// Most bytes that are read: what [`MAX_PROVEN`] entries need, with room for another's layout.
const MAX_BYTES: u64 = 256 * 1024;

/// One orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: NodeId,
    /// Where its record said that it is.
    #[serde(default)]
    pub(super) addresses: Vec<SocketAddr>,
    /// Sequence of that record.
    #[serde(default)]
    pub(super) seq: u64,
    /// Unix milliseconds at which it was linked last.
    #[serde(default)]
    pub(super) seen_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    orchestrators: Vec<Entry>,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: Option<PathBuf>,
}

impl Memory {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// What is remembered, the last seen first. A file that cannot be read is as good as none: the
    /// orchestrators are found again.
    pub(super) fn load(&self) -> Vec<Entry> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        match read(&folder.join(FILE)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let file = folder.join(FILE);
                tracing::warn!(file = %file.display(), %error, "no orchestrators are remembered");
                Vec::new()
            }
        }
    }

    /// Keeps these, the last seen first, [`MAX_PROVEN`] at most.
    pub(super) fn store(&self, mut entries: Vec<Entry>) {
        let Some(folder) = &self.folder else { return };
        tidy(&mut entries);
        let stored = format(entries).and_then(|json| disk::replace(folder, FILE, &json));
        if let Err(error) = stored {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "orchestrators cannot be remembered");
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let mut json = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut json)?;
    parse(&json)
}

fn parse(json: &[u8]) -> io::Result<Vec<Entry>> {
    let form: Form = serde_json::from_slice(json)?;
    if form.version != VERSION {
        let why = format!("its version is {}, not {VERSION}", form.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut entries = form.orchestrators;
    tidy(&mut entries);
    Ok(entries)
}

fn format(entries: Vec<Entry>) -> io::Result<Vec<u8>> {
    let form = Form {
        version: VERSION,
        orchestrators: entries,
    };
    serde_json::to_vec_pretty(&form).map_err(io::Error::other)
}

/// Reads the text of a file and writes it again, for the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) fn rewrite(json: &[u8]) -> Option<Vec<u8>> {
    let entries = parse(json).ok()?;
    let bounded = entries.len() <= MAX_PROVEN
        && (entries.iter()).all(|entry| entry.addresses.len() <= MAX_RECORD_ADDRESSES);
    assert!(bounded, "more than is kept");
    Some(format(entries).expect("our own types serialise to JSON"))
}

fn tidy(entries: &mut Vec<Entry>) {
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.seen_ms));
    entries.truncate(MAX_PROVEN);
    for entry in entries {
        entry.addresses.truncate(MAX_RECORD_ADDRESSES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, seen_ms: u64) -> Entry {
        Entry {
            key: NodeId([n; 32]),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 4_000))],
            seq: 7,
            seen_ms,
        }
    }

    #[test]
    fn what_is_kept_comes_back_the_last_seen_first_and_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let memory = Memory::new(Some(dir.path().to_owned()));
        assert_eq!(memory.load(), []);
        memory.store(vec![entry(1, 10), entry(2, 20)]);
        assert_eq!(memory.load(), [entry(2, 20), entry(1, 10)]);
        memory.store((0..200).map(|n| entry(n, u64::from(n))).collect());
        let loaded = memory.load();
        assert_eq!(loaded.len(), MAX_PROVEN);
        assert_eq!(loaded[0], entry(199, 199));
        let files = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(files, 1, "nothing is left over");
    }

    #[test]
    fn a_damaged_or_foreign_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let memory = Memory::new(Some(dir.path().to_owned()));
        for content in ["", "{", "[]", r#"{"version":2,"orchestrators":[]}"#] {
            std::fs::write(dir.path().join(FILE), content).expect("written");
            assert_eq!(memory.load(), [], "{content}");
        }
        std::fs::write(dir.path().join(FILE), vec![b' '; 1 << 20]).expect("written");
        assert_eq!(memory.load(), []);
        memory.store(vec![entry(1, 1)]);
        assert_eq!(memory.load(), [entry(1, 1)]);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_with_a_missing_one_nothing_fails() {
        Memory::new(None).store(vec![entry(1, 1)]);
        let memory = Memory::new(Some(PathBuf::from("/nowhere/at/all")));
        memory.store(vec![entry(1, 1)]);
        assert_eq!(memory.load(), []);
    }
}
