//! The engine's process confines itself, before it has a second thread and before it touches a
//! file of its model. (WRK-3)
//!
//! In this order, since each step takes away what an earlier one needs:
//!
//! * `namespaces` – no network, mounts of its own
//! * `view` – opens what may be read, while everything can be
//! * `root` – a root with the view in it and nothing else
//! * `landlock` – the same said once more, to the part of the kernel that needs no namespaces
//! * `limits` – memory, open files, threads, processors
//! * `privileges` – no capabilities, and none to be had
//! * `syscalls` – the filter, last: it forbids all of the above
//!
//! Before all of them, and before the first message, `descriptors` closes what is open and none of its
//! own.
//!
//! Each says what it did or why it could not; `shields` makes of it what a provider asks for. A step
//! that fails leaves the process as it was before that step, and the others are still taken.

#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod root;
mod shields;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod view;

use super::EXIT_PANIC;
use crate::engine::protocol::Load;
use crate::sandbox::Shield;
use rustix::process::{Resource, Rlimit, setrlimit};
#[cfg(target_os = "linux")]
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Raised so that the kernel, short of memory, ends an engine before the worker or anything else.
#[cfg(target_os = "linux")]
const OOM_SCORE_ADJ: &str = "500";

/// What a step did, or why it could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done(String),
    Missing(String),
}

/// What comes first, whatever the process will do. What the system does not allow is said and gone
/// without.
pub(super) fn process() {
    #[cfg(target_os = "linux")]
    if let Err(error) = descriptors::close_inherited() {
        eprintln!("tether engine: descriptors of its worker stay open: {error}");
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("tether engine: core dumps stay on: {error}");
    }
    #[cfg(target_os = "linux")]
    die_with_parent();
    #[cfg(target_os = "linux")]
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        eprintln!("tether engine: oom_score_adj stays as it is: {error}");
    }
    // A panic on one thread leaves the engine half alive: locks poisoned, answers that never end.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(i32::from(EXIT_PANIC));
    }));
}

/// Linux sends the signal when the thread that started this process ends, so the worker starts
/// engines on a thread that lives as long as they should. The end of the socket says the same, but
/// only to a process that reads. The kernel forgets the wish when credentials change, so it is said
/// again after each such step.
#[cfg(target_os = "linux")]
fn die_with_parent() {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("tether engine: no parent-death signal: {error}");
    }
}

/// Confines this process to what `load` names, and says what holds. `load` is changed to the paths
/// that are seen from within.
///
/// # Errors
/// Why the model cannot be loaded within a confinement that was asked for.
#[cfg(target_os = "linux")]
pub(super) fn apply(load: &mut Load) -> Result<Vec<Shield>, String> {
    let parent = getppid();
    let confine = load.confine.clone();
    let spaces = namespaces::enter();
    // Only now: what is opened before belongs to mounts that are not this process's own.
    let view = view::View::open(&load.root, &confine.devices, &confine.read)?;
    let root = match &spaces.mounts {
        Step::Done(_) => root::enter(&view),
        Step::Missing(why) => Step::Missing(why.clone()),
    };
    let has_root = matches!(root, Step::Done(_));
    // The kernel forgot it with the change of credentials, and the parent may have ended since.
    die_with_parent();
    if getppid() != parent {
        std::process::exit(0);
    }
    if has_root {
        load.root = root::MODEL.into();
    }
    let files = landlock::restrict(&view, has_root);
    let limits = limits::set(&confine, load.threads, spaces.has_users);
    let privileges = privileges::drop_all();
    let syscalls = syscalls::filter(!confine.devices.is_empty());
    Ok(shields::of(&shields::Steps {
        network: spaces.network,
        root,
        other: spaces.other,
        landlock: files.files,
        ports: files.ports,
        scope: files.scope,
        memory: limits.memory,
        threads: limits.threads,
        limits: limits.rest,
        privileges,
        syscalls,
        cgroup: if confine.has_cgroup {
            Step::Done("a control group of its own (memory.max)".to_owned())
        } else {
            Step::Missing(confine.no_cgroup)
        },
    }))
}

/// Nothing is enforced here, and that is said.
#[cfg(not(target_os = "linux"))]
pub(super) fn apply(_: &mut Load) -> Result<Vec<Shield>, String> {
    Ok(shields::nothing("only Linux has it"))
}
