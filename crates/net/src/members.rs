//! Who belongs to the mesh now, as far as this node was told; kept on its disk. (PRE-6) [T-CTL-6]

mod file;
mod reception;
mod tell;

pub(crate) use reception::Reception;
pub(crate) use tell::tell;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::control::{Control, MAX_CONTROL_BYTES};
use tether_wire::grant::Mesh;
use tether_wire::membership::ControlError;
use tether_wire::{Digest, Membership, NodeId, codec};
use tokio::sync::watch;

/// Sealed control messages, by their digests.
type Sealed = BTreeMap<Digest, Arc<[u8]>>;

/// What is known of who belongs to the mesh. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Members {
    inner: Arc<Inner>,
}

struct Inner {
    mesh: Mesh,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    folder: Option<PathBuf>,
    /// The version that is on the disk; held while one is written.
    saved: tokio::sync::Mutex<u64>,
}

struct State {
    current: Arc<Membership>,
    sealed: Sealed,
    /// Those that came since the start, in the order in which they came.
    news: Vec<Arc<[u8]>>,
    /// Grows with each change.
    version: u64,
}

impl Members {
    /// Nobody revoked, and nothing kept.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Self::with(Membership::new(mesh), Sealed::new(), None)
    }

    /// What this node was told in earlier runs, which it keeps in this folder.
    ///
    /// # Errors
    /// When the file is there and cannot be read: a node that has forgotten whom it must not trust
    /// does not start.
    pub fn open(mesh: Mesh, folder: &Path) -> io::Result<Self> {
        let mut membership = Membership::new(mesh);
        let mut sealed = Sealed::new();
        for bytes in file::read(folder)? {
            match Control::decode(&bytes).map_err(ControlError::from) {
                Ok(control) => match membership.learn(&control) {
                    Ok(true) => drop(sealed.insert(Digest::of(&bytes), bytes.into())),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "a kept control message counts no more"),
                },
                Err(error) => tracing::warn!(%error, "a kept control message counts no more"),
            }
        }
        Ok(Self::with(membership, sealed, Some(folder.to_owned())))
    }

    fn with(membership: Membership, sealed: Sealed, folder: Option<PathBuf>) -> Self {
        let news = sealed.values().cloned().collect();
        Self {
            inner: Arc::new(Inner {
                mesh: *membership.mesh(),
                state: Mutex::new(State {
                    current: Arc::new(membership),
                    sealed,
                    news,
                    version: 0,
                }),
                changed: watch::Sender::new(0),
                folder,
                saved: tokio::sync::Mutex::new(0),
            }),
        }
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        self.inner.mesh
    }

    /// Who belongs to it now.
    #[must_use]
    pub fn current(&self) -> Arc<Membership> {
        self.state().current.clone()
    }

    /// Told whenever something changed.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Control messages from this place in the order in which they came; as many as there are is the
    /// place from which the next ones are news.
    #[must_use]
    pub fn since(&self, place: usize) -> Vec<Arc<[u8]>> {
        let state = self.state();
        state.news.get(place..).unwrap_or_default().to_vec()
    }

    /// Links with these keys alone from now on; nothing is with all. Links with others end.
    pub fn allow_only(&self, keys: Option<HashSet<NodeId>>) {
        let mut state = self.state();
        Arc::make_mut(&mut state.current).allow_only(keys);
        self.announce(&mut state);
    }

    /// Takes a control message, and keeps it on the disk if it changes anything; says whether it
    /// did. It counts also where the disk cannot be written, which is logged, and tried again with
    /// the next one.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn learn(&self, control: &[u8]) -> Result<bool, ControlError> {
        let Some(version) = self.take(control)? else {
            return Ok(false);
        };
        self.save(version).await;
        Ok(true)
    }

    /// Takes it in memory: the version that it makes, where it is news.
    fn take(&self, bytes: &[u8]) -> Result<Option<u64>, ControlError> {
        // Before its digest is taken: a stranger's megabytes are not worth that.
        if bytes.len() > MAX_CONTROL_BYTES {
            return Err(codec::CodecError::TooLarge {
                what: "control message",
                len: bytes.len(),
                limit: MAX_CONTROL_BYTES,
            }
            .into());
        }
        let digest = Digest::of(bytes);
        if self.state().sealed.contains_key(&digest) {
            return Ok(None);
        }
        let checked = self.current().check(&Control::decode(bytes)?)?;
        let mut state = self.state();
        if !Arc::make_mut(&mut state.current).apply(&checked)? {
            return Ok(None);
        }
        let sealed: Arc<[u8]> = bytes.into();
        state.news.push(sealed.clone());
        state.sealed.insert(digest, sealed);
        Ok(Some(self.announce(&mut state)))
    }

    fn announce(&self, state: &mut State) -> u64 {
        state.version += 1;
        self.inner.changed.send_replace(state.version);
        state.version
    }

    /// Puts what is known on the disk, unless somebody did since this version.
    async fn save(&self, version: u64) {
        let Some(folder) = self.inner.folder.clone() else {
            return;
        };
        let mut saved = self.inner.saved.lock().await;
        if *saved >= version {
            return;
        }
        let (version, sealed) = {
            let state = self.state();
            (state.version, state.news.clone())
        };
        let shown = folder.display().to_string();
        let write = tokio::task::spawn_blocking(move || file::write(&folder, &sealed));
        match write.await {
            Ok(Ok(())) => *saved = version,
            Ok(Err(error)) => {
                tracing::error!(folder = shown, %error, "revocations count now, but cannot be kept");
            }
            Err(error) => tracing::error!(%error, "revocations cannot be kept"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        (self.inner.state.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        write!(
            f,
            "Members(of {:?}, {:?})",
            self.inner.mesh.id,
            state.current.counts()
        )
    }
}

#[cfg(test)]
mod tests;
