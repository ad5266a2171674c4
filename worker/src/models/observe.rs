//! Looks at what a loaded model takes of memory, and corrects what the pool believes of it. (WRK-5)
//!
//! It is looked now and then while a model is loaded, and when an answer ends: caches grow with
//! answers, and whoever is let in next should be let in by what is true then.
//!
//! What remains: within an answer a model may grow for as long as it is between two looks, and then
//! all of them together are over the budget until one has gone. The budget says who is let in; the
//! wall is `worker.engine.memory_limit_mib`, for each engine alone.

use super::entry::Entry;
use super::estimate::Size;
use super::memory::{Memory, is_more, most_resident, resident_bytes};
use super::pool::Room;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_wire::Digest;
use tokio::time::Instant;

/// How often it is looked at a model that is loaded, whatever happens.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two looks, however many answers end: a look reads a file of the kernel's.
const LEAST_BETWEEN: Duration = Duration::from_millis(20);

/// Looks at one model.
pub(super) struct Observer {
    entry: Entry,
    memory: Memory,
    digest: Digest,
    size: Size,
    looked: Mutex<Looked>,
}

#[derive(Debug, Default)]
struct Looked {
    /// The engine's processes, while it is loaded.
    pids: Vec<u32>,
    last: Option<Instant>,
    /// The most that it held since it was loaded.
    peak_bytes: u64,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Observer({})", self.digest)
    }
}

impl Observer {
    pub(super) fn new(entry: Entry, memory: Memory, digest: Digest, size: Size) -> Self {
        Self {
            entry,
            memory,
            digest,
            size,
            looked: Mutex::default(),
        }
    }

    /// Its engine was loaded, or has other processes now: what each needs from now on. What counts as
    /// its size when it was loaded is that of a process which has answered nothing yet.
    pub(super) fn loaded(&self, pids: Vec<u32>) -> Option<Room> {
        let first = most_resident(&pids);
        let was_loaded = {
            let mut looked = self.looked();
            looked.last = Some(Instant::now());
            let before = std::mem::replace(&mut looked.pids, pids);
            if before.is_empty() {
                looked.peak_bytes = 0;
            }
            !before.is_empty()
        };
        if let Some(bytes) = first.filter(|_| !was_loaded) {
            self.memory.loaded(self.digest, bytes);
        }
        self.needs()
    }

    /// Whether its engine is loaded.
    pub(super) fn is_loaded(&self) -> bool {
        !self.looked().pids.is_empty()
    }

    /// Its engine is gone, or is about to go. Whether one was loaded.
    pub(super) fn gone(&self) -> bool {
        !std::mem::take(&mut self.looked().pids).is_empty()
    }

    /// What its engine holds in memory.
    pub(super) fn resident_bytes(&self) -> u64 {
        let pids = self.looked().pids.clone();
        pids.into_iter().filter_map(resident_bytes).sum()
    }

    /// Looks, unless that was done a moment ago: what each of its processes needs, where that is more
    /// than was known. Each may come to be as large as the largest is.
    pub(super) fn look(&self) -> Option<Room> {
        let pids = {
            let mut looked = self.looked();
            let now = Instant::now();
            let is_due = |last: Instant| now.duration_since(last) >= LEAST_BETWEEN;
            if !looked.last.is_none_or(is_due) {
                return None;
            }
            looked.last = Some(now);
            looked.pids.clone()
        };
        let bytes = most_resident(&pids)?;
        let is_new = {
            let mut looked = self.looked();
            let is_new = is_more(bytes, looked.peak_bytes);
            if is_new {
                looked.peak_bytes = bytes;
            }
            is_new
        };
        let has_grown = self.memory.grew(&self.digest, bytes);
        (is_new || has_grown).then(|| self.needs()).flatten()
    }

    /// It is not loaded any more: what a process of it needs to be loaded again.
    pub(super) fn left(&self) -> Option<Room> {
        *self.looked() = Looked::default();
        self.needs()
    }

    /// What was seen, and told to whoever asks for the worker's state.
    fn needs(&self) -> Option<Room> {
        let peak_bytes = self.looked().peak_bytes;
        let seen = self.memory.seen(&self.digest)?;
        let (one, _) = self.size.memory(Some(seen), peak_bytes);
        self.entry.change(|status| {
            if let Some(known) = &mut status.known {
                known.process_bytes = one.most.total();
            }
        });
        Some(one)
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::estimate::Place;
    use super::super::leases::Leases;
    use super::super::pool::{Limits, Need, Pool, Processes};
    use super::super::{ModelStatus, memory};
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use tether_telemetry::metrics::{Registry, WorkerMetrics};
    use tether_wire::Manifest;
    use tether_wire::manifest::Format;
    use tokio::sync::watch;

    const MIB: u64 = 1024 * 1024;

    fn observer(dir: &tempfile::TempDir) -> Observer {
        let manifest = Manifest {
            model: "m@1.0".parse().expect("valid"),
            format: Format::Gguf,
            weights: "m.gguf".to_owned(),
            tokenizer: None,
            context_tokens: 16,
            cache_width: Some(1),
            files: Vec::new(),
            licence: None,
            base_model: None,
            base_digest: None,
            adapters: Vec::new(),
            created_ms: 0,
        };
        let all = vec![ModelStatus::new("m".to_owned())];
        let metrics = WorkerMetrics::register(&Registry::new());
        Observer::new(
            Entry::new(0, Arc::new(watch::Sender::new(all)), metrics),
            Memory::open(dir.path()),
            Digest([1; 32]),
            Size::of(&manifest, Place::Machine { is_cpu: true }),
        )
    }

    /// This process stands for an engine's.
    fn grow() -> Vec<u8> {
        let now = memory::resident_bytes(std::process::id()).expect("Linux");
        grow_by(now / 2 + 32 * MIB)
    }

    fn grow_by(bytes: u64) -> Vec<u8> {
        let mut grown = vec![0_u8; usize::try_from(bytes).expect("fits")];
        grown.iter_mut().step_by(1_024).for_each(|byte| *byte = 1);
        grown
    }

    #[tokio::test(start_paused = true)]
    async fn what_grew_is_seen_at_the_next_look_and_looks_are_few() {
        let dir = tempfile::tempdir().expect("folder");
        let observer = observer(&dir);
        assert_eq!(observer.look(), None, "nothing is loaded");
        let loaded = observer.loaded(vec![std::process::id()]).expect("seen");
        let grown = grow();
        assert_eq!(observer.look(), None, "it was looked a moment ago");
        tokio::time::advance(LEAST_BETWEEN).await;
        let needs = observer.look().expect("it grew");
        assert!(needs.least.total() > loaded.least.total() + 16 * MIB);
        assert_eq!(observer.look(), None);
        drop(grown);
        assert!(observer.gone() && !observer.gone());
        tokio::time::advance(LEAST_BETWEEN).await;
        assert_eq!(observer.look(), None, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_grew_with_an_answer_is_corrected_when_that_ends() {
        let dir = tempfile::tempdir().expect("folder");
        let limits = Limits {
            memory: (1_u64 << 40).into(),
            accelerators: Vec::new(),
            adapters: 0,
            idle_ms: 0,
        };
        let leases = Leases::new(Pool::new(limits, 1), 1);
        let observer = Arc::new(observer(&dir));
        leases.observe_by(0, &observer);
        let twice = Need {
            processes: Processes::Exactly(2),
            ..Need::default()
        };
        leases.know(0, twice);
        let needs = observer.loaded(vec![std::process::id()]).expect("seen");
        leases.observed(0, &needs);
        leases.loaded(0, 0);
        let lease = leases.ask(0).expect("it is loaded");
        let grown = grow();
        tokio::time::advance(LEAST_BETWEEN).await;
        assert_eq!(leases.memory(0).0, needs.most.times(2));
        drop(lease);
        let (corrected, used) = leases.memory(0);
        assert!(corrected.total() > 2 * (needs.most.total() + 16 * MIB));
        assert_eq!(used, corrected, "the next is let in by this");
        drop(grown);
    }

    /// A process that has begun, and does nothing from then on.
    fn idle() -> std::process::Child {
        let mut cat = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat");
        let (said, heard) = (cat.stdin.as_mut(), cat.stdout.as_mut());
        said.expect("piped").write_all(b"x").expect("written");
        heard
            .expect("piped")
            .read_exact(&mut [0])
            .expect("given back");
        cat
    }

    #[tokio::test(start_paused = true)]
    async fn every_process_is_taken_to_be_as_large_as_the_largest() {
        let dir = tempfile::tempdir().expect("folder");
        let observer = observer(&dir);
        let mut idle = idle();
        let first = observer.loaded(vec![idle.id()]).expect("seen");
        let grown = grow_by(first.most.total() + 32 * MIB);
        // One that comes later says nothing of what a load takes.
        let pids = vec![idle.id(), std::process::id()];
        assert_eq!(observer.loaded(pids).expect("seen"), first);
        assert!(observer.is_loaded() && observer.resident_bytes() > 32 * MIB);
        tokio::time::advance(LEAST_BETWEEN).await;
        let needs = observer.look().expect("it grew");
        assert!(needs.most.total() > first.most.total() + 16 * MIB);
        drop(grown);
        drop(idle.stdin.take());
        idle.wait().expect("ended");
    }
}
