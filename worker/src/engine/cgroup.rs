//! Control groups (version 2) for engines, where the worker was given one to divide.
//!
//! That is so in a systemd service with `Delegate=yes`, and in a container whose group is its own.
//! The kernel lets a group that has processes of its own have no limits for groups inside it, so the
//! worker moves itself into one (`worker`) and makes one for each engine beside it. A group in which
//! others live too is left as it is: it is not the worker's to divide.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most processes and threads of an engine.
const MAX_TASKS: u64 = 1_024;

/// The group of this process, divided.
#[derive(Debug)]
pub(crate) struct Groups {
    base: PathBuf,
    has_pids: bool,
    next: AtomicU64,
}

/// The group of one engine. Gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
}

/// The group of this process, divided on the first call; or why it is not to be.
pub(crate) fn own() -> Result<&'static Groups, String> {
    static OWN: OnceLock<Result<Groups, String>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let base = place(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        if !is_given(&base) {
            return Err(format!("{} was not delegated", base.display()));
        }
        Groups::divide(base, std::process::id())
    });
    own.as_ref().map_err(|why| format!("control group: {why}"))
}

/// Where the group of a process is, from what the kernel says of mounts and groups.
fn place(mounts: &str, groups: &str) -> Result<PathBuf, String> {
    let group = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this machine has none of version 2")?;
    // "ID PARENT DEV ROOT POINT OPTIONS … - TYPE …" (proc_pid_mountinfo(5))
    let mut found = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        (tail.split(' ').next()? == "cgroup2").then_some((root, point))
    });
    let (root, point) = found.next().ok_or("version 2 is not mounted")?;
    let inside = Path::new(group)
        .strip_prefix(root)
        .map_err(|_| format!("{group} is not beneath what is mounted"))?;
    Ok(Path::new(point).join(inside))
}

/// Whether whoever made the group gave it away: systemd marks it, or gives it to the user of the
/// service; a container sees its own as the root.
fn is_given(base: &Path) -> bool {
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 4];
        rustix::fs::getxattr(base, *name, &mut value[..])
            .is_ok_and(|len| value[..len].starts_with(b"1"))
    });
    let is_users = !rustix::process::geteuid().is_root()
        && rustix::fs::access(base, rustix::fs::Access::WRITE_OK).is_ok();
    marked || is_users || !base.join("cgroup.type").exists()
}

impl Groups {
    /// Divides a group in which only `pid` lives.
    fn divide(base: PathBuf, pid: u32) -> Result<Self, String> {
        let told = |error: io::Error| format!("{}: {error}", base.display());
        let read = |file: &str| fs::read_to_string(base.join(file)).map_err(told);
        let controllers = read("cgroup.controllers")?;
        let has = |name: &str| controllers.split_whitespace().any(|it| it == name);
        if !has("memory") {
            return Err(format!("{} has no memory controller", base.display()));
        }
        let alone = |text: String| text.split_whitespace().all(|it| it == pid.to_string());
        if !alone(read("cgroup.procs")?) {
            return Err(format!("other processes live in {}", base.display()));
        }
        let own = base.join("worker");
        fs::create_dir_all(&own).map_err(told)?;
        fs::write(own.join("cgroup.procs"), pid.to_string()).map_err(told)?;
        let has_pids = has("pids");
        let wanted = if has_pids { "+memory +pids" } else { "+memory" };
        if let Err(error) = fs::write(base.join("cgroup.subtree_control"), wanted) {
            // Back to where it was.
            let _ = fs::write(base.join("cgroup.procs"), pid.to_string());
            let _ = fs::remove_dir(&own);
            return Err(told(error));
        }
        Ok(Self {
            base,
            has_pids,
            next: AtomicU64::new(1),
        })
    }

    /// Puts a process that has not begun into a group with limits.
    pub(crate) fn engine(&self, pid: u32, limit_bytes: u64) -> Result<Group, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.base.join(format!("engine-{number}"));
        fs::create_dir_all(&path)
            .map_err(|error| format!("control group: {}: {error}", path.display()))?;
        let group = Group { path };
        let write = |file: &str, text: String| {
            let at = group.path.join(file);
            fs::write(&at, text)
                .map_err(|error| format!("control group: {}: {error}", at.display()))
        };
        write("memory.max", limit_bytes.to_string())?;
        // Where there is no swap there is no such file.
        let _ = write("memory.swap.max", "0".to_owned());
        // All of its threads are one process, which ends as a whole.
        let _ = write("memory.oom.group", "1".to_owned());
        if self.has_pids {
            write("pids.max", MAX_TASKS.to_string())?;
        }
        write("cgroup.procs", pid.to_string())?;
        Ok(group)
    }
}

impl Group {
    /// Whether the kernel ended it for want of memory.
    pub(crate) fn was_full(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events")).is_ok_and(|events| {
            let kills = events
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "));
            kills.is_some_and(|count| count.trim() != "0")
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that is being reaped holds it for a moment; the next start uses another name.
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw
36 25 0:30 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";

    #[test]
    fn the_group_is_found_where_it_is_mounted() {
        let found = place(MOUNTS, "3:cpu:/x\n0::/system.slice/tether.service\n");
        let at = "/sys/fs/cgroup/unified/system.slice/tether.service";
        assert_eq!(found, Ok(PathBuf::from(at)));
        assert!(place(MOUNTS, "3:cpu:/x\n").is_err());
        assert!(place("", "0::/x\n").is_err());
        let part = MOUNTS.replace("0:30 / ", "0:30 /other ");
        assert!(place(&part, "0::/x\n").is_err());
    }

    /// A folder that looks like a group.
    fn group(controllers: &str, processes: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |file: &str, text: &str| {
            fs::write(dir.path().join(file), text).expect("write");
        };
        write("cgroup.controllers", controllers);
        write("cgroup.procs", processes);
        dir
    }

    #[test]
    fn a_group_is_divided_only_when_it_is_ours_alone() {
        let divide = |dir: &tempfile::TempDir| Groups::divide(dir.path().to_owned(), 7);
        let error = divide(&group("cpu pids", "7\n")).expect_err("no memory");
        assert!(error.contains("memory controller"), "{error}");
        let shared = group("memory pids", "7\n8\n");
        let error = divide(&shared).expect_err("others live there");
        assert!(error.contains("other processes"), "{error}");
        assert!(!shared.path().join("worker").exists(), "it is left alone");

        let ours = group("cpu memory pids", "7\n");
        let groups = divide(&ours).expect("divided");
        let read = |file: &str| fs::read_to_string(ours.path().join(file)).expect("reads");
        assert_eq!(read("worker/cgroup.procs"), "7");
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids");
        let engine = groups.engine(9, 1 << 30).expect("made");
        assert_eq!(read("engine-1/memory.max"), (1 << 30).to_string());
        assert_eq!(read("engine-1/pids.max"), "1024");
        assert_eq!(read("engine-1/cgroup.procs"), "9");
        assert!(!engine.was_full());
        let events = |text: &str| fs::write(ours.path().join("engine-1/memory.events"), text);
        events("low 0\noom 1\noom_kill 0\n").expect("write");
        assert!(!engine.was_full());
        events("low 0\noom 1\noom_kill 1\n").expect("write");
        assert!(engine.was_full());
    }
}
