//! Where `tether up` keeps what in its data folder.
//!
//! ```text
//! DATA_DIR/run.json                what runs now, see commands::run_file
//! DATA_DIR/up.lock                 held while it runs
//! DATA_DIR/mesh/                   the operator's key, the mesh id, the register of grants
//! DATA_DIR/publisher.key           signs the models that `up` packs
//! DATA_DIR/tenants.toml, api-key   the tenant `local`
//! DATA_DIR/models/NAME-VERSION/    the small model, unpacked, packed and signed
//! DATA_DIR/{gateway,orchestrator}/ node.key, node.grant, and what the role keeps
//! DATA_DIR/workers/N/              node.key, node.grant, worker.toml, worker.log and its old one, data/
//! ```

use crate::commands::run_file::RUN_FILE;
use crate::files;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The data folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// Held while `up` runs; released by the system when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Layout {
    /// Makes the folder, closed to others. One that is there keeps its mode.
    pub(crate) fn create(root: &Path) -> std::io::Result<Self> {
        files::private_dir(root)?;
        let root = root.canonicalize()?;
        for dir in ["models", "gateway", "orchestrator", "workers"] {
            files::private_dir(&root.join(dir))?;
        }
        Ok(Self { root })
    }

    /// Takes the folder for this process; fails if another `tether up` has it.
    pub(crate) fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.root.join("up.lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; the error stands without it.
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
                anyhow::bail!(
                    "another `tether up` (process {}) uses {}: stop it, or give another --data-dir",
                    holder.trim(),
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
    pub(crate) fn run_file(&self) -> PathBuf {
        self.root.join(RUN_FILE)
    }
    pub(crate) fn mesh(&self) -> PathBuf {
        self.root.join("mesh")
    }
    pub(crate) fn publisher_key(&self) -> PathBuf {
        self.root.join("publisher.key")
    }
    pub(crate) fn tenants(&self) -> PathBuf {
        self.root.join("tenants.toml")
    }
    pub(crate) fn api_key(&self) -> PathBuf {
        self.root.join("api-key")
    }
    pub(crate) fn model(&self, name: &str, version: &str) -> PathBuf {
        self.root.join("models").join(format!("{name}-{version}"))
    }
    pub(crate) fn gateway(&self) -> PathBuf {
        self.root.join("gateway")
    }
    pub(crate) fn orchestrator(&self) -> PathBuf {
        self.root.join("orchestrator")
    }
    pub(crate) fn worker(&self, number: usize) -> PathBuf {
        self.workers().join(number.to_string())
    }
    fn workers(&self) -> PathBuf {
        self.root.join("workers")
    }

    /// The folders of all nodes so far, also of workers that this start does not run.
    pub(crate) fn node_dirs(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut dirs = vec![self.gateway(), self.orchestrator()];
        for entry in self.workers().read_dir()? {
            dirs.push(entry?.path());
        }
        Ok(dirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_data_folder_is_for_one_up() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::create(&dir.path().join("data")).expect("made");
        let lock = layout.lock().expect("free");
        let error = layout.lock().expect_err("held").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains("--data-dir"), "{error}");
        drop(lock);
        layout.lock().expect("free again");
    }
}
