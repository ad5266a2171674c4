//! Who belongs to the mesh now, as far as this node was told; kept on its disk. (PRE-6) [T-CTL-6]

pub(crate) mod file;
mod reception;
mod state;
mod tell;

pub(crate) use reception::Reception;
pub use state::MembershipNews;
pub(crate) use tell::tell;

use crate::clock::now_ms;
use crate::rate::TokenBucket;
use state::State;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tether_wire::control::{Control, MAX_CONTROL_BYTES};
use tether_wire::grant::Mesh;
use tether_wire::membership::{Checked, ControlError, MAX_FACTS};
use tether_wire::{Membership, NodeId};
use tokio::sync::watch;

/// New control messages of one peer that are verified at once: a whole set. [T-CTL-8]
const MAX_HEARD_AT_ONCE: u32 = MAX_FACTS as u32;
/// And each second beyond.
const MAX_HEARD_PER_SECOND: u32 = 50;
/// Peers whose messages are counted before those are forgotten that have said little.
const MAX_COUNTED: usize = 1_024;

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
    started: Instant,
    /// What each peer may still make this node verify.
    allowances: Mutex<HashMap<NodeId, TokenBucket>>,
}

/// What became of the control messages of a peer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// How many changed something.
    pub news: usize,
    /// How many were passed over since the peer sends too many; it sends them again.
    pub shed: usize,
    /// Why the first of those that are not taken is not.
    pub refused: Option<ControlError>,
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
            if let Ok((_, Some(error))) | Err(error) = members.take(&bytes) {
                tracing::warn!(%error, "a kept control message counts no more");
            }
        }
        Ok(members)
    }

    fn with(mesh: Mesh, folder: Option<PathBuf>) -> Self {
        Self {
            inner: Arc::new(Inner {
                mesh,
                state: Mutex::new(State::new(mesh)),
                changed: watch::Sender::new(0),
                folder,
                saved: tokio::sync::Mutex::new(0),
                started: Instant::now(),
                allowances: Mutex::default(),
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
        self.state().current()
    }

    /// Told whenever something changed.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// What is known that was not at this version, or known then and is no longer, in the order in
    /// which it came; and the version with all this.
    #[must_use]
    pub fn since(&self, version: u64) -> (Vec<MembershipNews>, u64) {
        self.state().since(version)
    }

    /// Links with these keys alone from now on; nothing is with all. Links with others end.
    pub fn allow_only(&self, keys: Option<HashSet<NodeId>>) {
        let mut state = self.state();
        state.allow_only(keys);
        self.inner.changed.send_replace(state.version());
    }

    /// Takes a control message, and keeps it on the disk if it changes anything; says whether it
    /// did. Of several facts those that can be taken are, also where another cannot. It counts also
    /// where the disk cannot be written, which is logged, and tried again with
    /// the next one.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn learn(&self, control: &[u8]) -> Result<bool, ControlError> {
        let (news, refused) = self.take(control)?;
        if news > 0 {
            self.save().await;
        }
        refused.map_or(Ok(news > 0), Err)
    }

    /// Takes control messages of a peer, and keeps what changes anything. A peer that sends more news
    /// than it may is passed over, and one that is wrong takes nothing from the others. [T-CTL-8]
    pub async fn hear(&self, from: NodeId, controls: Vec<Vec<u8>>) -> Heard {
        let members = self.clone();
        // Each takes some 300 µs to verify.
        let taken = tokio::task::spawn_blocking(move || members.take_all(from, &controls));
        let heard = taken.await.unwrap_or_default();
        if heard.news > 0 {
            self.save().await;
        }
        heard
    }

    /// Forgets what is over, now.
    pub async fn forget(&self) {
        let forgot = {
            let mut state = self.state();
            let forgot = state.forget(now_ms());
            if forgot > 0 {
                self.inner.changed.send_replace(state.version());
            }
            forgot
        };
        if forgot > 0 {
            tracing::debug!(forgot, "facts about members are over");
            self.save().await;
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<(usize, Option<ControlError>), ControlError> {
        if bytes.len() <= MAX_CONTROL_BYTES && self.state().is_held(bytes) {
            return Ok((0, None));
        }
        let all = self.current().check(&Control::decode(bytes)?)?;
        Ok(self.apply(&all))
    }

    fn take_all(&self, from: NodeId, controls: &[Vec<u8>]) -> Heard {
        let mut heard = Heard::default();
        let mut all = Vec::new();
        let current = self.current();
        for control in controls {
            if control.len() <= MAX_CONTROL_BYTES && self.state().is_held(control) {
                continue;
            }
            if !self.may_say_more(from) {
                heard.shed += 1;
                continue;
            }
            let decoded = Control::decode(control).map_err(ControlError::from);
            match decoded.and_then(|control| current.check(&control)) {
                Ok(checked) => all.extend(checked),
                Err(error) => heard.refused = heard.refused.or(Some(error)),
            }
        }
        let (news, refused) = self.apply(&all);
        heard.news = news;
        heard.refused = heard.refused.or(refused);
        heard
    }

    /// Takes what was checked: how much of it changed something, and why the first of what is not
    /// taken is not.
    fn apply(&self, all: &[Checked]) -> (usize, Option<ControlError>) {
        let (mut news, mut refused) = (0, None);
        let now_ms = now_ms();
        let mut state = self.state();
        for checked in all {
            match state.apply(checked, now_ms) {
                Ok(is_news) => news += usize::from(is_news),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if news > 0 {
            self.inner.changed.send_replace(state.version());
        }
        (news, refused)
    }

    fn may_say_more(&self, from: NodeId) -> bool {
        let now_ms = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut all = (self.inner.allowances.lock()).unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COUNTED && !all.contains_key(&from) {
            all.retain(|_, bucket| !bucket.is_full(now_ms));
        }
        all.entry(from)
            .or_insert_with(|| TokenBucket::new(MAX_HEARD_PER_SECOND, MAX_HEARD_AT_ONCE, now_ms))
            .take(now_ms)
    }

    /// Puts what is known on the disk, unless somebody did since it was known.
    async fn save(&self) {
        let Some(folder) = self.inner.folder.clone() else {
            return;
        };
        let version = self.state().version();
        let mut saved = self.inner.saved.lock().await;
        if *saved >= version {
            return;
        }
        let (version, sealed) = {
            let state = self.state();
            (state.version(), state.sealed())
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
        let counts = self.current().counts();
        write!(f, "Members(of {:?}, {counts:?})", self.inner.mesh.id)
    }
}

#[cfg(test)]
mod tests;
