//! What the kernel counts: memory, threads, open files, written bytes; and which processors.

use super::Step;
use crate::engine::layout::processors;
use crate::engine::memory::{MAX_THREADS, data_limit};
use crate::sandbox::Confine;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Most open files: a model of many shards, with room.
pub(super) const OPEN_FILES: u64 = 1_024;
/// Behind the worker, which has heartbeats to send, and behind whatever else the machine is for.
const NICE: i32 = 5;

/// What became of them.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) memory: Step,
    pub(super) threads: Step,
    pub(super) rest: Step,
}

/// Sets them. RLIMIT_CPU is not among them: it counts seconds over the life of a process, and an
/// engine lives for months; its share is bounded by priority and by its number of threads.
pub(super) fn set(confine: &Confine, threads: u32, has_users: bool) -> Limits {
    let memory = match confine.memory_limit_bytes {
        0 => Step::Missing("RLIMIT_DATA: no limit is configured".to_owned()),
        limit => step(
            format!("RLIMIT_DATA of {} MiB", data_limit(limit) >> 20),
            lower(Resource::Data, data_limit(limit)),
        ),
    };
    let threads_step = if has_users {
        // Counted within the user namespace, so that only this process's are.
        step(
            format!("RLIMIT_NPROC of {MAX_THREADS} threads"),
            lower(Resource::Nproc, MAX_THREADS),
        )
    } else {
        Step::Missing(
            "RLIMIT_NPROC: without a user namespace it counts all of the user's processes, and does not count root's; the worker counts threads instead".to_owned(),
        )
    };
    let set = lower(Resource::Nofile, OPEN_FILES)
        .and_then(|()| lower(Resource::Fsize, 0))
        .and_then(|()| lower(Resource::Core, 0));
    let mut told =
        format!("RLIMIT_NOFILE of {OPEN_FILES}, no written file, no core dump, nice {NICE}");
    if let Err(error) = setpriority_process(None, NICE) {
        told = format!("{told} refused ({error})");
    }
    if let Some(cores) = pin(threads, confine.first_processor) {
        told = format!("{told}, {cores} processors");
    }
    Limits {
        memory,
        threads: threads_step,
        rest: step(told, set),
    }
}

fn step(what: String, done: rustix::io::Result<()>) -> Step {
    match done {
        Ok(()) => Step::Done(what),
        Err(error) => Step::Missing(format!("{what}: {error}")),
    }
}

/// Sets a limit for good; one that is lower already stays.
fn lower(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let now = getrlimit(resource);
    let limit = now.maximum.map_or(limit, |most| most.min(limit));
    setrlimit(
        resource,
        Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        },
    )
}

/// Keeps this process to as many processors as it was given threads, where it was said at which they
/// begin and there are more; how many.
fn pin(threads: u32, first: Option<u32>) -> Option<usize> {
    let allowed = sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let those = processors(&cores, first?, threads)?;
    let mut chosen = CpuSet::new();
    those.iter().for_each(|core| chosen.set(*core));
    sched_setaffinity(None, &chosen).ok()?;
    Some(those.len())
}
