//! Who belongs to the mesh now, as far as this node was told; kept on its disk. (PRE-6) [T-CTL-6]

pub(crate) mod file;
mod reception;
mod state;
mod tell;

pub use file::MEMBERSHIP_FILE;
pub(crate) use reception::Reception;
pub use state::MembershipNews;
pub(crate) use tell::tell;

use crate::clock::now_ms;
use crate::rate::TokenBucket;
use state::{State, Taken};
use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tether_wire::control::Control;
use tether_wire::grant::Mesh;
use tether_wire::membership::{Checked, ControlError};
use tether_wire::{Membership, NodeId};
use tokio::sync::{Semaphore, watch};

/// Control messages of one peer that are verified for nothing at once: those that there is no room
/// for, are over, or take the place of others. [T-CTL-8]
const MAX_IDLE_AT_ONCE: u32 = 2_000;
/// And each second beyond.
const MAX_IDLE_PER_SECOND: u32 = 20;
/// Peers whose messages are counted.
const MAX_COUNTED: usize = 4_096;
/// Control messages that are verified in one go: some 20 ms.
const MAX_IN_ONE_GO: usize = 64;
/// How long a node runs before it forgets what is over: its clock may have been set since.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// What is known of who belongs to the mesh. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Members {
    inner: Arc<Inner>,
}

struct Inner {
    mesh: Mesh,
    state: Mutex<State>,
    /// What all look at.
    current: RwLock<Arc<Membership>>,
    changed: watch::Sender<u64>,
    folder: Option<PathBuf>,
    /// The version that is on the disk; held while one is written.
    saved: tokio::sync::Mutex<u64>,
    /// When this run began, by both clocks.
    started: (Instant, u64),
    /// What each peer may still make this node verify for nothing.
    allowances: Mutex<HashMap<NodeId, TokenBucket>>,
    /// Threads that verify at once.
    threads: Semaphore,
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
        let (kept, current) = (file::read(folder)?, members.current());
        let mut all = Vec::with_capacity(kept.len());
        for control in &kept {
            let decoded = Control::decode(control).map_err(ControlError::from);
            match decoded.and_then(|control| current.check(&control)) {
                Ok(checked) => all.push((control.as_slice(), checked)),
                Err(error) => tracing::warn!(%error, "a kept control message counts no more"),
            }
        }
        // What is over is forgotten later: the clock may be wrong at the start.
        members.apply(&all, 0, |_, taken| {
            if let Err(error) = taken {
                tracing::warn!(%error, "a kept control message counts no more");
            }
        });
        Ok(members)
    }

    fn with(mesh: Mesh, folder: Option<PathBuf>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            inner: Arc::new(Inner {
                mesh,
                state: Mutex::new(State::new(mesh)),
                current: RwLock::new(Arc::new(Membership::new(mesh))),
                changed: watch::Sender::new(0),
                folder,
                saved: tokio::sync::Mutex::new(0),
                started: (Instant::now(), now_ms()),
                allowances: Mutex::default(),
                threads: Semaphore::new(threads),
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
        (self.inner.current.read())
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        self.publish(&state);
    }

    /// Takes a control message, and keeps it on the disk if it changes anything; says whether it
    /// did. Of several facts those that can be taken are, also where another cannot. It counts also
    /// where the disk cannot be written, which is logged, and tried again with the next one.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn learn(&self, control: &[u8]) -> Result<bool, ControlError> {
        let (news, refused) = self.take(control)?;
        if news > 0 {
            self.keep().await;
        }
        refused.map_or(Ok(news > 0), Err)
    }

    /// Takes control messages of a peer; what changes anything is on the disk a moment later, or
    /// after [`Members::keep`]. A peer that makes this node verify too much for nothing is passed
    /// over, and a message that is wrong takes nothing from the others. [T-CTL-8]
    pub async fn hear(&self, from: NodeId, controls: Vec<Vec<u8>>) -> Heard {
        let mut all = Heard::default();
        for part in controls.chunks(MAX_IN_ONE_GO) {
            // Never closed.
            let _thread = self.inner.threads.acquire().await;
            let (members, part) = (self.clone(), part.to_vec());
            let taken = tokio::task::spawn_blocking(move || members.take_all(from, &part));
            let heard = taken.await.unwrap_or_default();
            all.news += heard.news;
            all.shed += heard.shed;
            all.refused = all.refused.or(heard.refused);
        }
        all
    }

    /// Forgets what is over, once this node has run for a while: a clock that is set later makes it
    /// forget nothing too early.
    pub(crate) async fn forget(&self) {
        let (began, began_ms) = self.inner.started;
        let ran = began.elapsed();
        if ran < FORGET_AFTER {
            return;
        }
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        let forgot = self.forget_at(now_ms().min(began_ms.saturating_add(ran_ms)));
        if forgot > 0 {
            tracing::debug!(forgot, "facts about members are over");
            self.keep().await;
        }
    }

    fn forget_at(&self, now_ms: u64) -> usize {
        let mut state = self.state();
        let forgot = state.forget(now_ms);
        if forgot > 0 {
            self.publish(&state);
        }
        forgot
    }

    fn take(&self, bytes: &[u8]) -> Result<(usize, Option<ControlError>), ControlError> {
        let control = Control::decode(bytes)?;
        if self.state().is_known(bytes) {
            return Ok((0, None));
        }
        let all = self.current().check(&control)?;
        let (mut news, mut refused) = (0, None);
        self.apply(&[(bytes, all)], now_ms(), |_, taken| match taken {
            Ok(taken) => news += usize::from(taken != Taken::Idle),
            Err(error) => refused = refused.take().or(Some(error)),
        });
        Ok((news, refused))
    }

    fn take_all(&self, from: NodeId, controls: &[Vec<u8>]) -> Heard {
        let mut heard = Heard::default();
        let mut all = Vec::new();
        let current = self.current();
        let mut allowance = self.allowance(from);
        for control in controls {
            // Of what the operator itself revoked nothing is ever passed over.
            let decoded = Control::decode(control).map_err(ControlError::from);
            let is_first = decoded
                .as_ref()
                .is_ok_and(|it| it.claims_root(&self.inner.mesh));
            if decoded.is_ok() && self.state().is_known(control) {
                continue;
            }
            if allowance == 0 && !is_first {
                heard.shed += 1;
                continue;
            }
            match decoded.and_then(|control| current.check(&control)) {
                Ok(checked) => all.push((control.as_slice(), checked)),
                Err(error) => {
                    allowance = allowance.saturating_sub(1);
                    self.spend(from);
                    heard.refused = heard.refused.or(Some(error));
                }
            }
        }
        drop(current);
        let mut idle = vec![false; all.len()];
        self.apply(&all, now_ms(), |at, taken| match taken {
            Ok(Taken::Added) => heard.news += 1,
            Ok(Taken::Replaced) => {
                heard.news += 1;
                idle[at] = true;
            }
            Ok(Taken::Idle) => idle[at] = true,
            Err(error) => {
                idle[at] = true;
                heard.refused = heard.refused.take().or(Some(error));
            }
        });
        for _ in idle.iter().filter(|idle| **idle) {
            self.spend(from);
        }
        heard
    }

    /// Takes what was checked, in one go, at this time, and tells of each fact what it did, by the
    /// place of its control message.
    fn apply(
        &self,
        all: &[(&[u8], Vec<Checked>)],
        now_ms: u64,
        mut each: impl FnMut(usize, Result<Taken, ControlError>),
    ) {
        let mut state = self.state();
        let before = state.version();
        for (at, (control, facts)) in all.iter().enumerate() {
            for checked in facts {
                let taken = state.apply(checked, now_ms);
                if matches!(taken, Err(ControlError::Full { .. })) {
                    state.refuse(control);
                }
                each(at, taken);
            }
        }
        if state.version() != before {
            self.publish(&state);
        }
    }

    /// Shows what is known to all who look, and wakes who waits for a change.
    fn publish(&self, state: &State) {
        let current = Arc::new(state.membership().clone());
        *(self.inner.current.write()).unwrap_or_else(PoisonError::into_inner) = current;
        self.inner.changed.send_replace(state.version());
    }

    /// How many messages a peer may still send for nothing.
    fn allowance(&self, from: NodeId) -> u32 {
        let now_ms = self.uptime_ms();
        let mut all = (self.inner.allowances.lock()).unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COUNTED && !all.contains_key(&from) {
            all.retain(|_, bucket| !bucket.is_full(now_ms));
            if all.len() >= MAX_COUNTED {
                return 0;
            }
        }
        all.entry(from)
            .or_insert_with(|| TokenBucket::new(MAX_IDLE_PER_SECOND, MAX_IDLE_AT_ONCE, now_ms))
            .left(now_ms)
    }

    fn spend(&self, from: NodeId) {
        let now_ms = self.uptime_ms();
        let mut all = (self.inner.allowances.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = all.get_mut(&from) {
            bucket.take(now_ms);
        }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.inner.started.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts what is known on the disk, unless somebody did since it was known.
    pub async fn keep(&self) {
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
