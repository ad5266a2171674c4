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
use tether_wire::{Membership, NodeId, Signed};
use tokio::sync::{Semaphore, watch};

/// Control messages of one peer that are verified for nothing at once: those that there is no room
/// for, are over, or take the place of others. [T-CTL-8]
const MAX_IDLE_AT_ONCE: u32 = 2_000;
/// And each second beyond.
const MAX_IDLE_PER_SECOND: u32 = 20;
/// Messages of one peer at once that claim to be the operator's and are not; one a second beyond.
const MAX_FORGED_AT_ONCE: u32 = 50;
/// Peers whose messages are counted.
const MAX_COUNTED: usize = 4_096;
/// Control messages that are verified in one go: some 20 ms.
const MAX_IN_ONE_GO: usize = 64;
/// Most bytes of a control message in a refusal, which has to fit into an answer to a greeting.
const MAX_PROOF_BYTES: usize = 3_000;
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
    /// The version that is on the disk; held while one is written, also where nobody waits for it
    /// any more.
    saved: Arc<tokio::sync::Mutex<u64>>,
    /// When this run began, by both clocks.
    started: (Instant, u64),
    /// What each peer may still make this node verify for nothing.
    allowances: Mutex<HashMap<NodeId, Allowance>>,
    /// Threads that verify at once.
    threads: Semaphore,
}

/// What a peer may still make this node verify for nothing.
struct Allowance {
    idle: TokenBucket,
    /// Messages that claimed to be the operator's, and were not.
    forged: TokenBucket,
    /// Held while messages of the peer are verified: one go at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Allowance {
    fn new(now_ms: u64) -> Self {
        Self {
            idle: TokenBucket::new(MAX_IDLE_PER_SECOND, MAX_IDLE_AT_ONCE, now_ms),
            forged: TokenBucket::new(1, MAX_FORGED_AT_ONCE, now_ms),
            turn: Arc::default(),
        }
    }

    fn is_full(&mut self, now_ms: u64) -> bool {
        self.idle.is_full(now_ms) && self.forged.is_full(now_ms)
    }
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
        if let Ok(mut saved) = members.inner.saved.try_lock() {
            *saved = members.state().version();
        }
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
                saved: Arc::default(),
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

    /// Takes a control message, and keeps it on the disk; says whether it changed anything. Of several
    /// facts those that can be taken are, also where another cannot.
    ///
    /// # Errors
    /// Why it is not taken; [`ControlError::NotKept`] where it counts, and cannot be written.
    pub async fn learn(&self, control: &[u8]) -> Result<bool, ControlError> {
        let (news, refused) = self.take(control)?;
        let kept = self.keep().await;
        refused
            .map_or(Ok(news > 0), Err)
            .and_then(|news| kept.map(|()| news))
    }

    /// Takes control messages of a peer; what changes anything is on the disk a moment later, or
    /// after [`Members::keep`]. A peer that makes this node verify too much for nothing is passed
    /// over, and a message that is wrong takes nothing from the others. [T-CTL-8]
    pub async fn hear(&self, from: NodeId, controls: Vec<Vec<u8>>) -> Heard {
        let mut all = Heard::default();
        let Some(turn) = self.with_allowance(from, |allowance, _| allowance.turn.clone()) else {
            all.shed = controls.len();
            return all;
        };
        let _turn = turn.lock().await;
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

    /// The control message by which this sealed grant counts no more, if that is why it does not,
    /// and it is not too large to be told in a greeting.
    pub(crate) fn proof_against(&self, grant: &[u8]) -> Option<Vec<u8>> {
        let fact = self.current().grounds_against(&Signed::from_bytes(grant))?;
        let proof = self.state().proof(&fact)?;
        (proof.len() <= MAX_PROOF_BYTES).then(|| proof.to_vec())
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
            // It is tried again with the next change.
            let _ = self.keep().await;
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
        if let Some(verdict) = self.state().verdict(bytes) {
            return verdict.map(|()| (0, None));
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
        let left = |allowance: &mut Allowance, now_ms| {
            (allowance.idle.left(now_ms), allowance.forged.left(now_ms))
        };
        let (mut idle, mut forged) = self.with_allowance(from, left).unwrap_or_default();
        for control in controls {
            let decoded = Control::decode(control).map_err(ControlError::from);
            if decoded.is_ok()
                && let Some(verdict) = self.state().verdict(control)
            {
                heard.refused = heard.refused.or(verdict.err());
                continue;
            }
            // Of what the operator itself revokes nothing is passed over, unless the peer made up
            // too much of the kind.
            let is_roots = decoded
                .as_ref()
                .is_ok_and(|it| it.claims_root(&self.inner.mesh));
            if idle == 0 && !(is_roots && forged > 0) {
                heard.shed += 1;
                continue;
            }
            match decoded.and_then(|control| current.check(&control)) {
                Ok(checked) => all.push((control.as_slice(), checked)),
                Err(error) => {
                    idle = idle.saturating_sub(1);
                    forged = forged.saturating_sub(u32::from(is_roots));
                    self.with_allowance(from, |allowance, now_ms| {
                        allowance.idle.take(now_ms);
                        if is_roots {
                            allowance.forged.take(now_ms);
                        }
                    });
                    heard.refused = heard.refused.or(Some(error));
                }
            }
        }
        drop(current);
        let mut cost = vec![false; all.len()];
        self.apply(&all, now_ms(), |at, taken| match taken {
            Ok(Taken::Added) => heard.news += 1,
            Ok(Taken::Replaced) => {
                heard.news += 1;
                cost[at] = true;
            }
            Ok(Taken::Idle) => cost[at] = true,
            Err(error) => {
                cost[at] = true;
                heard.refused = heard.refused.take().or(Some(error));
            }
        });
        let cost = cost.into_iter().filter(|cost| *cost).count();
        self.with_allowance(from, |allowance, now_ms| {
            for _ in 0..cost {
                allowance.idle.take(now_ms);
            }
        });
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
            let (mut is_idle, mut why) = (true, None);
            for checked in facts {
                let taken = state.apply(checked, now_ms);
                is_idle &= matches!(taken, Ok(Taken::Idle) | Err(_));
                why = why.or(taken.clone().err());
                each(at, taken);
            }
            if is_idle {
                state.set_idle(control, why);
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

    /// Looks at what a peer may still make this node verify, at this uptime; nothing where too many
    /// peers are counted.
    fn with_allowance<T>(
        &self,
        from: NodeId,
        look: impl FnOnce(&mut Allowance, u64) -> T,
    ) -> Option<T> {
        let now_ms = self.uptime_ms();
        let mut all = (self.inner.allowances.lock()).unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COUNTED && !all.contains_key(&from) {
            all.retain(|_, allowance| !allowance.is_full(now_ms));
            if all.len() >= MAX_COUNTED {
                return None;
            }
        }
        let allowance = all.entry(from).or_insert_with(|| Allowance::new(now_ms));
        Some(look(allowance, now_ms))
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.inner.started.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts what is known on the disk, unless somebody did since it was known.
    ///
    /// # Errors
    /// [`ControlError::NotKept`]; what is known counts all the same.
    pub async fn keep(&self) -> Result<(), ControlError> {
        let Some(folder) = self.inner.folder.clone() else {
            return Ok(());
        };
        let version = self.state().version();
        let mut saved = self.inner.saved.clone().lock_owned().await;
        if *saved >= version {
            return Ok(());
        }
        let (version, sealed) = {
            let state = self.state();
            (state.version(), state.sealed())
        };
        let shown = folder.display().to_string();
        // The guard goes along: whoever gives up waiting leaves no second writer in its way.
        let write = tokio::task::spawn_blocking(move || {
            file::write(&folder, &sealed)?;
            *saved = version;
            Ok::<_, io::Error>(())
        });
        let written = write
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| {
            tracing::error!(folder = shown, %error, "revocations count now, but cannot be kept");
            ControlError::NotKept(error.to_string())
        })
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
