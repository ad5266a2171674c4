//! A root with the model's files in it, a few of the system's, and nothing else; nothing in it can be
//! written.

use super::Step;
use super::view::{Entry, View};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{chdir, pivot_root};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The model's folder, seen from within.
pub(super) const MODEL: &str = "/model";
/// Room for folders and empty files to bind on; nothing is ever written there.
const ROOT_OPTIONS: &str = "size=1m,nr_inodes=16k,mode=755";

/// Goes there, where there are mounts of its own.
pub(super) fn enter(view: &View) -> Step {
    let made = match &view.excess {
        Some(excess) => Err(excess.clone()),
        None => own_root(view),
    };
    match made {
        Ok(()) => Step::Done("a read-only root with the model's files and no others".to_owned()),
        Err(why) => Step::Missing(format!("a root of its own: {why}")),
    }
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
            CWD,
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
