//! Namespaces: an empty network, mounts of its own, no shared memory or host name of others. As root
//! directly; otherwise inside a user namespace of its own.

use super::Step;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};
use std::fs;

/// What became of them.
#[derive(Debug)]
pub(super) struct Spaces {
    pub(super) network: Step,
    pub(super) mounts: Step,
    pub(super) other: Step,
    /// Whether it is within a user namespace of its own.
    pub(super) has_users: bool,
}

/// Enters them, as many as there are.
pub(super) fn enter() -> Spaces {
    let mut network = unshare(CloneFlags::CLONE_NEWNET);
    let mut has_users = false;
    if network.is_err() {
        if let Err(why) = own_users() {
            let missing = || Step::Missing(format!("namespaces: {why}"));
            return Spaces {
                network: missing(),
                mounts: missing(),
                other: missing(),
                has_users,
            };
        }
        has_users = true;
        network = unshare(CloneFlags::CLONE_NEWNET);
    }
    let told = |what: &str, done: nix::Result<()>| match done {
        Ok(()) => Step::Done(what.to_owned()),
        Err(error) => Step::Missing(format!("{what}: {error}")),
    };
    Spaces {
        network: told("an empty network namespace", network),
        mounts: told(
            "a mount namespace of its own",
            unshare(CloneFlags::CLONE_NEWNS),
        ),
        other: told(
            "IPC and UTS namespaces of its own",
            unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS),
        ),
        has_users,
    }
}

/// A user namespace in which this process is who it is outside, and has all that it needs to make
/// the other namespaces.
fn own_users() -> Result<(), String> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| match error {
        Errno::EINVAL => format!("user namespace: {error} (the process has several threads)"),
        error => format!("user namespace: {error}"),
    })?;
    let write = |file: &str, text: &str| {
        fs::write(file, text).map_err(|error| format!("user namespace: {file}: {error}"))
    };
    // Without it the kernel takes no map of groups from someone unprivileged.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", &format!("{group} {group} 1"))
}
