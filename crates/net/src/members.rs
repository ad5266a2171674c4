//! Who belongs to the mesh now, as far as this node was told; kept on its disk. (PRE-6) [T-CTL-6]

pub(crate) mod file;
mod reception;
mod tell;

pub(crate) use reception::Reception;
pub(crate) use tell::tell;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::control::Control;
use tether_wire::grant::Mesh;
use tether_wire::membership::{ControlError, Fact};
use tether_wire::{Membership, NodeId, codec};
use tokio::sync::watch;

/// Control messages, by what they say.
type Sealed = BTreeMap<Fact, Arc<[u8]>>;

/// A change of what is known, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipNews {
    /// A fact, and the encoded control message that proves it.
    Learnt(Fact, Arc<[u8]>),
    /// A fact that no longer matters.
    Dropped(Fact),
}

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
    /// All changes since the start; as many as facts were heard, which are bounded by what the
    /// operators sign.
    news: Vec<MembershipNews>,
    /// Grows with each change.
    version: u64,
}

impl Members {
    /// Nobody revoked, and nothing kept.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Self::with(mesh, None)
    }

    /// What this node was told in earlier runs, which it keeps in this folder.
    ///
    /// # Errors
    /// When the file is there and cannot be read: a node that has forgotten whom it must not trust
    /// does not start.
    pub fn open(mesh: Mesh, folder: &Path) -> io::Result<Self> {
        let members = Self::with(mesh, Some(folder.to_owned()));
        for bytes in file::read(folder)? {
            if let Err(error) = members.take(&bytes) {
                tracing::warn!(%error, "a kept control message counts no more");
            }
        }
        Ok(members)
    }

    fn with(mesh: Mesh, folder: Option<PathBuf>) -> Self {
        Self {
            inner: Arc::new(Inner {
                mesh,
                state: Mutex::new(State {
                    current: Arc::new(Membership::new(mesh)),
                    sealed: Sealed::new(),
                    news: Vec::new(),
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

    /// Changes from this place on; as many as there are is the place of the next one.
    #[must_use]
    pub fn since(&self, place: usize) -> Vec<MembershipNews> {
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
        let all = self.current().check(&Control::decode(bytes)?)?;
        let mut state = self.state();
        let mut version = None;
        for checked in all {
            if state.sealed.contains_key(checked.fact()) {
                continue;
            }
            let Some(gone) = Arc::make_mut(&mut state.current).apply(&checked)? else {
                continue;
            };
            for fact in gone {
                state.sealed.remove(&fact);
                state.news.push(MembershipNews::Dropped(fact));
            }
            let (fact, sealed) = (*checked.fact(), Arc::from(codec::encode(checked.control())));
            state
                .news
                .push(MembershipNews::Learnt(fact, Arc::clone(&sealed)));
            state.sealed.insert(fact, sealed);
            version = Some(self.announce(&mut state));
        }
        Ok(version)
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
            (
                state.version,
                state.sealed.values().cloned().collect::<Vec<_>>(),
            )
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
