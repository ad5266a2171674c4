//! `[orchestrator.store]`: where jobs are kept.

use super::{ConfigError, OrchestratorConfig};
use crate::store::StoreError;
use crate::store::keys::KEY_FILE;
use crate::store::postgres::Place;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The kind of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One file in the data folder, for one orchestrator.
    #[default]
    Sqlite,
    /// A PostgreSQL database, which several orchestrators share.
    Postgres,
}

/// The `[orchestrator.store]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `sqlite` or `postgres`.
    pub kind: StoreKind,
    /// Of `postgres`: the database, as `postgres://USER@HOST/NAME` or in PostgreSQL's `key=value`
    /// form, without a password. The connection is not encrypted: a local socket or a private network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of `postgres`: a file with the password, which only its owner can read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The key under which everything of tenants is sealed; made at the first start. Orchestrators
    /// that share a store need the same file. Default: `store.key` in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl StoreConfig {
    /// Checks that the settings belong together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, why: String| Err(ConfigError { field, why });
        match (self.kind, &self.url) {
            (StoreKind::Sqlite, Some(_)) => refuse(
                "store.url",
                "is for `kind = \"postgres\"`, and the kind is `sqlite`".to_owned(),
            ),
            (StoreKind::Sqlite, None) if self.password_file.is_some() => refuse(
                "store.password_file",
                "is for `kind = \"postgres\"`, and the kind is `sqlite`".to_owned(),
            ),
            (StoreKind::Sqlite, None) => Ok(()),
            (StoreKind::Postgres, None) => refuse(
                "store.url",
                "is missing: name the database, as postgres://USER@HOST/NAME".to_owned(),
            ),
            (StoreKind::Postgres, Some(url)) => match Place::new(url) {
                Ok(_) => Ok(()),
                Err(why) => refuse("store.url", why),
            },
        }
    }

    /// The file of the store's key.
    #[must_use]
    pub fn key_file(&self, data_dir: &Path) -> PathBuf {
        let file = self.key_file.as_deref().unwrap_or(Path::new(KEY_FILE));
        OrchestratorConfig::resolve(data_dir, file)
    }

    /// The database of `postgres`; nothing where the store is a file.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn place(&self, data_dir: &Path) -> Result<Option<Place>, StoreError> {
        let Some(url) = self.url.as_deref() else {
            return Ok(None);
        };
        let place = Place::new(url).map_err(|why| StoreError::Connect {
            place: "the configured place".to_owned(),
            why,
        })?;
        match &self.password_file {
            None => Ok(Some(place)),
            Some(file) => {
                let file = OrchestratorConfig::resolve(data_dir, file);
                place.with_password_file(&file).map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> StoreConfig {
        toml::from_str(text).expect("valid")
    }

    fn refused(text: &str) -> String {
        config(text).check().expect_err("refused").to_string()
    }

    #[test]
    fn settings_of_the_other_kind_and_passwords_are_refused() {
        assert_eq!(config("").check(), Ok(()));
        let shared = "kind = \"postgres\"\nurl = \"postgres://me@db/tether\"\nkey_file = \"k\"";
        assert_eq!(config(shared).check(), Ok(()));
        assert!(refused("url = \"postgres://me@db/x\"").contains("orchestrator.store.url"));
        assert!(refused("password_file = \"p\"").contains("store.password_file"));
        assert!(refused("kind = \"postgres\"").contains("is missing"));
        let with = "kind = \"postgres\"\nurl = \"postgres://me:secret@db/x\"";
        let told = refused(with);
        assert!(
            told.contains("password_file") && !told.contains("secret"),
            "{told}"
        );
        assert!(toml::from_str::<StoreConfig>("kind = \"mysql\"").is_err());
    }

    #[test]
    fn files_are_found_from_the_data_folder_and_a_password_is_for_its_owner_alone() {
        let data = tempfile::tempdir().expect("a folder");
        let path = |name: &str| data.path().join(name);
        assert_eq!(config("").key_file(data.path()), path("store.key"));
        let own = config("key_file = \"/etc/tether/k\"");
        assert_eq!(own.key_file(data.path()), Path::new("/etc/tether/k"));
        assert!(config("").place(data.path()).expect("none").is_none());
        let shared = config(
            "kind = \"postgres\"\nurl = \"postgres://me@db/x\"\npassword_file = \"password\"",
        );
        let told = shared
            .place(data.path())
            .err()
            .expect("no file")
            .to_string();
        assert!(told.contains("password"), "{told}");
        crate::secret_file::make(&path("password"), "hush").expect("made");
        assert!(shared.place(data.path()).expect("read").is_some());
    }
}
