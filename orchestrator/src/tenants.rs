//! Tenants and the hashes of their API keys, from a file that people edit.
//!
//! ```toml
//! [[tenant]]
//! id = "acme"
//! key_hashes = ["<64 hex digits>"]
//! weight = 2          # 1 where it is not there
//! priority = "high"   # or "normal", as where it is not there, or "low"
//! ```
//!
//! The keys themselves are nowhere. A file with a mistake is refused whole, with the line.

use crate::queue::{MAX_WEIGHT, Priority};
use crate::shares::{Share, Shares};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tether_net::FollowedFile;
use tether_wire::directory::TenantEntry;
use tether_wire::{Digest, TenantId};
use toml::Spanned;

/// Most bytes of the file.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Most tenants.
pub const MAX_TENANTS: usize = 100_000;
/// Most API keys of one tenant: a few are in use while keys are replaced.
pub const MAX_KEYS_PER_TENANT: usize = 16;

/// All tenants, by id.
pub type Tenants = BTreeMap<TenantId, TenantEntry>;

/// Why a file of tenants is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantsError {
    /// It cannot be read.
    #[error("the tenants' file {path} cannot be read: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// It holds a mistake.
    #[error("the tenants' file {path}, line {line}: {why}")]
    Mistake {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenant: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    key_hashes: Vec<Spanned<String>>,
    #[serde(default)]
    weight: Option<Spanned<u32>>,
    #[serde(default)]
    priority: Option<Priority>,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// All tenants.
    pub tenants: Tenants,
    /// What part of the work each gets while there is too much.
    pub shares: Shares,
}

/// Parses the text of a file. `path` is for the messages only.
///
/// # Errors
/// The first mistake, with its line.
pub fn parse(path: &Path, text: &str) -> Result<Parsed, TenantsError> {
    let mistake = |at: usize, why: String| TenantsError::Mistake {
        path: path.to_owned(),
        line: text[..at.min(text.len())].matches('\n').count() + 1,
        why,
    };
    let file: File = toml::from_str(text).map_err(|error| {
        mistake(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
        )
    })?;
    let (mut tenants, mut shares) = (Tenants::new(), Shares::default());
    let mut owners: BTreeMap<Digest, TenantId> = BTreeMap::new();
    for entry in file.tenant {
        let at = entry.id.span().start;
        let id =
            TenantId::new(entry.id.into_inner()).map_err(|error| mistake(at, error.to_string()))?;
        if tenants.len() == MAX_TENANTS {
            return Err(mistake(at, format!("more than {MAX_TENANTS} tenants")));
        }
        if entry.key_hashes.len() > MAX_KEYS_PER_TENANT {
            let why = format!("tenant `{id}` has more than {MAX_KEYS_PER_TENANT} keys");
            return Err(mistake(at, why));
        }
        let mut key_hashes = Vec::with_capacity(entry.key_hashes.len());
        for hash in entry.key_hashes {
            let at = hash.span().start;
            let hash: Digest = (hash.get_ref().parse())
                .map_err(|error: tether_wire::id::IdError| mistake(at, error.to_string()))?;
            if let Some(owner) = owners.insert(hash, id.clone()) {
                return Err(mistake(at, format!("the key is already one of `{owner}`")));
            }
            key_hashes.push(hash);
        }
        let weight = entry.weight.as_ref().map_or(1, |it| *it.get_ref());
        if !(1..=MAX_WEIGHT).contains(&weight) {
            let at = entry.weight.map_or(at, |it| it.span().start);
            let why = format!("weight is {weight}, not between 1 and {MAX_WEIGHT}");
            return Err(mistake(at, why));
        }
        let priority = entry.priority.unwrap_or(Priority::Normal);
        shares.set(id.clone(), Share { weight, priority });
        let entry = TenantEntry {
            id: id.clone(),
            key_hashes,
            rule: 0,
        };
        if tenants.insert(id.clone(), entry).is_some() {
            return Err(mistake(at, format!("tenant `{id}` is there twice")));
        }
    }
    Ok(Parsed { tenants, shares })
}

/// The file, and what was last read of it.
#[derive(Debug)]
pub struct TenantsFile(FollowedFile);

impl TenantsFile {
    /// A file that was not read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(FollowedFile::new(path, MAX_FILE_BYTES))
    }

    /// Reads the file if it was changed since the last time; nothing if it was not.
    ///
    /// # Errors
    /// Why it is refused; told once for each change.
    pub fn poll(&mut self) -> Result<Option<Parsed>, TenantsError> {
        let text = self.0.poll().map_err(|why| TenantsError::Read {
            path: self.0.path().to_owned(),
            why: why.to_string(),
        })?;
        text.map(|text| parse(self.0.path(), &text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> String {
        Digest([n; 32]).to_hex()
    }

    fn refused(text: &str) -> String {
        parse(Path::new("t.toml"), text)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn tenants_are_read() {
        let text = format!(
            "[[tenant]]\nid = \"a\"\nkey_hashes = [\"{}\", \"{}\"]\n[[tenant]]\nid = \"b\"\nkey_hashes = []\n",
            hash(1),
            hash(2)
        );
        let Parsed { tenants, shares } = parse(Path::new("t.toml"), &text).expect("read");
        assert_eq!(shares, Shares::default());
        assert_eq!(tenants.len(), 2);
        let a = &tenants[&TenantId::new("a").expect("valid")];
        assert_eq!(a.key_hashes, [Digest([1; 32]), Digest([2; 32])]);
    }

    #[test]
    fn a_tenant_has_a_share_of_its_own_where_the_file_says_so() {
        let text = "[[tenant]]\nid = \"a\"\nkey_hashes = []\nweight = 3\npriority = \"high\"\n\
                    [[tenant]]\nid = \"b\"\nkey_hashes = []\n";
        let shares = parse(Path::new("t.toml"), text).expect("read").shares;
        let share = |id: &str| shares.of(&TenantId::new(id).expect("valid"));
        let (weight, priority) = (3, Priority::High);
        assert_eq!(share("a"), Share { weight, priority });
        assert_eq!(share("b"), Share::default());
        let one = |line: &str| refused(&format!("[[tenant]]\nid=\"a\"\nkey_hashes=[]\n{line}\n"));
        assert!(one("weight = 0").contains("line 4: weight is 0, not between 1 and 1000"));
        assert!(one("priority = \"highest\"").contains("line 4"));
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        assert!(refused("[[tenant]]\nid = \"a\"\nkey_hashs = []\n").contains("line 3"));
        assert!(refused("\n\n[[tenant]]\nid = \"A b\"\nkey_hashes = []\n").contains("line 4"));
        assert!(refused("[[tenant]]\nid = \"a\"\nkey_hashes = [\n\"xyz\"]\n").contains("line 4"));
        assert!(refused("[[tenant\n").contains("line 1"));
    }

    #[test]
    fn a_key_belongs_to_one_tenant_and_a_tenant_is_there_once() {
        let two = |a: &str, b: &str, key_b: &str| {
            refused(&format!(
                "[[tenant]]\nid = \"{a}\"\nkey_hashes = [\"{}\"]\n[[tenant]]\nid = \"{b}\"\nkey_hashes = [\"{key_b}\"]\n",
                hash(1)
            ))
        };
        assert!(two("a", "b", &hash(1)).contains("already one of `a`"));
        assert!(two("a", "a", &hash(2)).contains("twice"));
        let many = vec![format!("\"{}\"", hash(3)); MAX_KEYS_PER_TENANT + 1].join(",");
        assert!(
            refused(&format!("[[tenant]]\nid=\"a\"\nkey_hashes=[{many}]")).contains("more than 16")
        );
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_told_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tenants.toml");
        let mut file = TenantsFile::new(path.clone());
        assert!(file.poll().is_err(), "missing");
        assert_eq!(file.poll(), Ok(None), "told once");
        std::fs::write(&path, "[[tenant]]\nid=\"a\"\nkey_hashes=[]\n").expect("written");
        assert_eq!(
            file.poll().expect("read").expect("changed").tenants.len(),
            1
        );
        assert_eq!(file.poll(), Ok(None));
        std::fs::write(&path, "[[tenant]]\nid=\"a b\"\n").expect("written");
        assert!(file.poll().is_err());
        assert_eq!(file.poll(), Ok(None));
        std::fs::write(&path, "").expect("written");
        assert_eq!(file.poll().expect("read"), Some(Parsed::default()));
    }
}
