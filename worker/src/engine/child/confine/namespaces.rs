//! Namespaces: an empty network, a root with the view in it and nothing else, no shared memory or
//! host name of others. As root directly; otherwise inside a user namespace of its own.

use super::Step;
use super::view::{Entry, View};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{chdir, getegid, geteuid, pivot_root};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The model's folder, seen from within.
pub(super) const MODEL: &str = "/model";
/// Room for folders and empty files to bind on; nothing is ever written there.
const ROOT_OPTIONS: &str = "size=1m,nr_inodes=16k,mode=755";

/// What became of them.
#[derive(Debug)]
pub(super) struct Spaces {
    pub(super) network: Step,
    pub(super) root: Step,
    pub(super) other: Step,
    /// Whether it is within a user namespace of its own.
    pub(super) has_users: bool,
}

impl Spaces {
    pub(super) fn has_root(&self) -> bool {
        matches!(self.root, Step::Done(_))
    }

    fn none(why: &str, has_users: bool) -> Self {
        let missing = || Step::Missing(why.to_owned());
        Self {
            network: missing(),
            root: missing(),
            other: missing(),
            has_users,
        }
    }
}

/// Enters them, as many as there are.
pub(super) fn enter(view: &View) -> Spaces {
    let direct = CloneFlags::CLONE_NEWNET;
    let has_users = match unshare(direct) {
        Ok(()) => false,
        Err(_) => match own_users() {
            Ok(()) => true,
            Err(why) => return Spaces::none(&format!("namespaces: {why}"), false),
        },
    };
    let network = if has_users { unshare(direct) } else { Ok(()) };
    let told = |what: &str, done: Result<(), Errno>| match done {
        Ok(()) => Step::Done(what.to_owned()),
        Err(error) => Step::Missing(format!("{what}: {error}")),
    };
    let network = told("an empty network namespace", network);
    let other = told(
        "IPC and UTS namespaces of its own",
        unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS),
    );
    let root = match (&view.excess, unshare(CloneFlags::CLONE_NEWNS)) {
        (Some(excess), _) => Step::Missing(format!("a root of its own: {excess}")),
        (None, Err(error)) => Step::Missing(format!("a mount namespace of its own: {error}")),
        (None, Ok(())) => match own_root(view) {
            Ok(()) => Step::Done("a read-only root with the model's files and no others".into()),
            Err(why) => Step::Missing(format!("a root of its own: {why}")),
        },
    };
    Spaces {
        network,
        root,
        other,
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

/// `mount` without what does not matter for a change of what is mounted already.
fn change(at: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
}

/// Makes the root and goes there. What is left of a failure is undone.
fn own_root(view: &View) -> Result<(), String> {
    // Any folder will do to mount it on: this one is there, and everything that is shown was opened
    // before it is covered.
    let base = &view.root;
    // What is mounted here is to be seen nowhere else.
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)
        .and_then(|()| {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tether"),
                base,
                Some("tmpfs"),
                flags,
                Some(ROOT_OPTIONS),
            )
        })
        .map_err(|error| format!("mount: {error}"))?;
    let made = furnish(view, base).and_then(|()| {
        chdir(base)
            .and_then(|()| pivot_root(".", "."))
            .map_err(|error| format!("pivot_root: {error}"))
    });
    if let Err(why) = made {
        // Back to what was: the model's folder is needed, and so is the place.
        let _ = chdir("/");
        return match umount2(base, MntFlags::MNT_DETACH) {
            Ok(()) => Err(why),
            Err(error) => {
                eprintln!("tether engine: {why}, and the attempt cannot be undone: {error}");
                std::process::exit(1);
            }
        };
    }
    // The old root lies over the new one now, and this takes it away. Nothing may be served if that
    // does not work, or all of the machine's files would be within reach.
    if let Err(error) = leave_old_root() {
        eprintln!("tether engine: the old root cannot be left: {error}");
        std::process::exit(1);
    }
    Ok(())
}

fn leave_old_root() -> std::io::Result<()> {
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let none_of_it = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    change(Path::new("/"), flags | none_of_it)?;
    Ok(())
}

/// Puts everything that may be seen into the new root.
fn furnish(view: &View, base: &Path) -> Result<(), String> {
    let model = base.join(MODEL.trim_start_matches('/'));
    for folder in &view.folders {
        make_folder(&model.join(&folder.path))?;
    }
    let readable = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    for file in &view.files {
        bind(file, &model.join(&file.path), readable | MsFlags::MS_NOEXEC)?;
    }
    for entry in &view.system {
        // Libraries have to be mapped as code.
        bind(entry, &inside(base, &entry.path), readable)?;
    }
    for entry in view.devices.iter().chain(&view.null) {
        bind(entry, &inside(base, &entry.path), MsFlags::MS_NOEXEC)?;
    }
    Ok(())
}

fn inside(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Shows `entry` at `target`, with `flags` and no set-uid bits.
fn bind(entry: &Entry, target: &Path, flags: MsFlags) -> Result<(), String> {
    if entry.is_folder {
        make_folder(target)?;
    } else {
        target.parent().map_or(Ok(()), make_folder)?;
        let made = openat(
            rustix::fs::CWD,
            target,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR,
        );
        drop(made.map_err(|error| format!("{}: {error}", target.display()))?);
    }
    let source = format!("/proc/self/fd/{}", entry.file.as_raw_fd());
    let told = |error: Errno| format!("show {}: {error}", entry.path.display());
    let none = None::<&str>;
    mount(Some(source.as_str()), target, none, MsFlags::MS_BIND, none).map_err(told)?;
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
    // A flag of the place where it comes from cannot be taken off within a user namespace.
    change(target, flags)
        .or_else(|_| change(target, flags | MsFlags::MS_NOEXEC))
        .map_err(told)
}
