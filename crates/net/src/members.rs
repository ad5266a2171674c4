//! Who belongs to the mesh now, as far as this node was told; kept on its disk. (PRE-6) [T-CTL-6]

pub(crate) mod file;
mod reception;
mod tell;

pub(crate) use reception::Reception;
pub(crate) use tell::tell;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::control::{Control, MAX_CONTROL_BYTES};
use tether_wire::grant::Mesh;
use tether_wire::membership::{Checked, ControlError, Fact};
use tether_wire::{Digest, Membership, NodeId, codec};
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

/// Changes that are kept for those who follow them.
const MAX_NEWS: usize = 16_384;

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
    /// Digests of what is held, so that what comes again is not verified again.
    held: HashSet<Digest>,
    /// The last changes.
    news: VecDeque<MembershipNews>,
    /// Place of the first of them.
    first: u64,
    /// Grows with each change.
    version: u64,
}

impl State {
    /// Holds a fact instead of those that no longer matter.
    fn hold(&mut self, checked: &Checked, gone: Vec<Fact>) {
        for fact in gone {
            if let Some(sealed) = self.sealed.remove(&fact) {
                self.held.remove(&Digest::of(&sealed));
            }
            self.tell(MembershipNews::Dropped(fact));
        }
        let (fact, sealed) = (*checked.fact(), Arc::from(codec::encode(checked.control())));
        self.held.insert(Digest::of(&sealed));
        self.tell(MembershipNews::Learnt(fact, Arc::clone(&sealed)));
        self.sealed.insert(fact, sealed);
    }

    fn tell(&mut self, news: MembershipNews) {
        if self.news.len() >= MAX_NEWS {
            self.news.pop_front();
            self.first += 1;
        }
        self.news.push_back(news);
    }
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
                    held: HashSet::new(),
                    news: VecDeque::new(),
                    first: 0,
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

    /// Changes from this place on, and the place of the next one. Who is too far behind is told all
    /// that is known.
    #[must_use]
    pub fn since(&self, place: u64) -> (Vec<MembershipNews>, u64) {
        let state = self.state();
        let next = state.first + state.news.len() as u64;
        let news = match place.checked_sub(state.first) {
            Some(skip) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                state.news.iter().skip(skip).cloned().collect()
            }
            None => (state.sealed.iter())
                .map(|(fact, sealed)| MembershipNews::Learnt(*fact, sealed.clone()))
                .collect(),
        };
        (news, next)
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
        let taken = self.take(control);
        self.keep().await;
        taken
    }

    /// Puts on the disk what was taken and is not there yet.
    pub async fn keep(&self) {
        let version = self.state().version;
        self.save(version).await;
    }

    /// Takes a control message in memory alone, until [`Members::keep`]; says whether it changed
    /// anything. Of several facts those that can be taken are, also where another cannot.
    ///
    /// # Errors
    /// Why it, or part of it, is not taken.
    pub fn take(&self, bytes: &[u8]) -> Result<bool, ControlError> {
        let digest = (bytes.len() <= MAX_CONTROL_BYTES).then(|| Digest::of(bytes));
        if digest.is_some_and(|digest| self.state().held.contains(&digest)) {
            return Ok(false);
        }
        let all = self.current().check(&Control::decode(bytes)?)?;
        let mut state = self.state();
        let (mut news, mut wrong) = (false, None);
        for checked in all {
            if state.sealed.contains_key(checked.fact()) {
                continue;
            }
            match Arc::make_mut(&mut state.current).apply(&checked) {
                Ok(None) => {}
                Ok(Some(gone)) => {
                    state.hold(&checked, gone);
                    news = true;
                }
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        if news {
            self.announce(&mut state);
        }
        wrong.map_or(Ok(news), Err)
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
