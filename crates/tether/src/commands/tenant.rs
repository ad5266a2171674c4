//! `tether tenant`: API keys of tenants. The file holds hashes; a key is shown once, when it is made.

use crate::files;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Subcommand;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tether_wire::{Digest, TenantId};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Give a tenant a new API key; prints the key, once
    ///
    /// The tenant is added to the file, or gets one more key if it is there: add a key, move
    /// clients over, remove the old hash. Orchestrators read the file again when it changes.
    #[command(after_long_help = "Examples:\n  tether tenant new --file tenants.toml --id acme")]
    New {
        /// The orchestrator's file of tenants; made if it is not there
        #[arg(long)]
        file: PathBuf,
        /// The tenant's id
        #[arg(long)]
        id: TenantId,
    },
}

/// The file as this command needs it; the orchestrator is its reader.
#[derive(Debug, Default, Serialize, Deserialize)]
struct TenantsFile {
    #[serde(default)]
    tenant: Vec<TenantTable>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TenantTable {
    id: TenantId,
    #[serde(default)]
    key_hashes: Vec<Digest>,
    /// Fields that other versions know are kept.
    #[serde(flatten)]
    others: toml::Table,
}

impl TenantCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self::New { file, id } = self;
        let key = new_api_key();
        add(&file, &id, &key)?;
        Ok(stdout::line(key)?)
    }
}

/// What an API key begins with, so that people and scanners for leaked secrets know it.
const API_KEY_PREFIX: &str = "tk-";
/// Length of its secret, 256 random bits.
const API_KEY_SECRET_BYTES: usize = 32;

/// A new API key.
pub(crate) fn new_api_key() -> String {
    let mut secret = [0; API_KEY_SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    format!("{API_KEY_PREFIX}{}", hex::encode(secret))
}

/// Whether a text has the form of [`new_api_key`].
pub(crate) fn is_api_key(text: &str) -> bool {
    text.strip_prefix(API_KEY_PREFIX).is_some_and(|secret| {
        secret.len() == 2 * API_KEY_SECRET_BYTES
            && secret
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Adds a key's hash to a tenant of the file.
pub(crate) fn add(file: &Path, id: &TenantId, key: &str) -> anyhow::Result<()> {
    let mut text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => bail!("cannot read {}: {error}", file.display()),
    };
    let mut tenants: TenantsFile = toml::from_str(&text)
        .with_context(|| format!("{} is not a file of tenants", file.display()))?;
    let hash = tether_wire::directory::api_key_hash(key);
    match tenants.tenant.iter_mut().find(|tenant| tenant.id == *id) {
        Some(tenant) if tenant.key_hashes.contains(&hash) => return Ok(()),
        Some(tenant) => {
            tenant.key_hashes.push(hash);
            text = toml::to_string(&tenants).context("cannot encode the tenants")?;
        }
        // Appended as text, so that what a person wrote into the file stays as it is.
        None => text.push_str(&format!(
            "\n[[tenant]]\nid = \"{id}\"\nkey_hashes = [\"{hash}\"]\n"
        )),
    }
    files::replace_private(file, text.as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_and_what_is_there_stays() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("tenants.toml");
        std::fs::write(
            &file,
            "# ours\n[[tenant]]\nid = \"acme\"\nplan = \"gold\"\n",
        )
        .expect("written");
        let acme = TenantId::new("acme").expect("valid");
        let other = TenantId::new("other").expect("valid");
        let keys = [new_api_key(), new_api_key(), new_api_key()];
        add(&file, &other, &keys[0]).expect("added");
        assert!(
            std::fs::read_to_string(&file)
                .expect("read")
                .contains("# ours")
        );
        add(&file, &acme, &keys[1]).expect("added");
        add(&file, &acme, &keys[2]).expect("added");
        add(&file, &acme, &keys[2]).expect("there already");
        let text = std::fs::read_to_string(&file).expect("read");
        let tenants: TenantsFile = toml::from_str(&text).expect("valid");
        let count = |id| {
            let tenant = tenants.tenant.iter().find(|tenant| tenant.id == id);
            tenant.expect("there").key_hashes.len()
        };
        assert_eq!((count(acme), count(other)), (2, 1));
        assert!(text.contains("plan = \"gold\""), "{text}");
        assert!(keys.iter().all(|key| !text.contains(&key[3..])));
    }
}
