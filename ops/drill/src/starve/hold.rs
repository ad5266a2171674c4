//! Ways to take the CPU from processes for a while.

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// Microseconds in which a quota counts, and those of them that are given.
const PERIOD_US: u32 = 100_000;
const QUOTA_US: u32 = 1_000;
/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// SIGSTOP: none at all
    Stop,
    /// A control group with a quota: a hundredth of a core, for all of them together
    Quota,
}

impl By {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Stop => "get no CPU (SIGSTOP)",
            Self::Quota => "get a hundredth of a core (a quota of the kernel)",
        }
    }
}

/// Processes without CPU, until [`Held::release`].
pub(super) struct Held {
    pids: Vec<u32>,
    group: Option<Group>,
}

impl Held {
    /// Takes their CPU; engines come before their workers, so that no worker misses its engine.
    pub(super) fn hold(by: By, pids: Vec<u32>) -> anyhow::Result<Self> {
        let group = match by {
            By::Stop => None,
            By::Quota => Some(Group::new(
                pids.first().copied().context("nobody to starve")?,
            )?),
        };
        let held = Self { pids, group };
        for pid in &held.pids {
            match &held.group {
                None => signal(*pid, Signal::STOP),
                Some(group) => group.take(*pid)?,
            }
        }
        Ok(held)
    }

    /// Gives it back.
    pub(super) fn release(self) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        for pid in &self.pids {
            match &self.group {
                None => signal(*pid, Signal::CONT),
                Some(group) => group.give_back(*pid),
            }
        }
    }
}

/// An engine may have ended, which its answers would show.
fn signal(pid: u32, signal: Signal) {
    let _ = crate::mesh::send(pid, signal);
}

/// A control group of ours; removed when it is dropped.
struct Group {
    dir: PathBuf,
    /// Where its processes came from.
    home: PathBuf,
}

impl Group {
    fn new(pid: u32) -> anyhow::Result<Self> {
        let lines = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let Some((home, old)) = home(&lines) else {
            bail!("this machine has no control groups for CPU: drill with --by stop alone");
        };
        let dir = home.join(format!("tether-drill-{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| {
            format!(
                "no control group can be made in {}: drill with --by stop alone",
                home.display()
            )
        })?;
        let group = Self { dir, home };
        if old {
            group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            group.write("cpu.cfs_quota_us", &QUOTA_US.to_string())?;
        } else {
            group.write("cpu.max", &format!("{QUOTA_US} {PERIOD_US}"))?;
        }
        Ok(group)
    }

    fn take(&self, pid: u32) -> anyhow::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn give_back(&self, pid: u32) {
        // It may have ended.
        let _ = std::fs::write(self.home.join("cgroup.procs"), pid.to_string());
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only an empty one can be removed; who is still in it was killed.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// The folder of a process's group for CPU, from `/proc/PID/cgroup`, and whether it is of the first
/// version of control groups.
fn home(lines: &str) -> Option<(PathBuf, bool)> {
    let fields = |line: &str| -> Option<(String, String)> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((
            controllers.to_owned(),
            path.trim_start_matches('/').to_owned(),
        ))
    };
    let all: Vec<(String, String)> = lines.lines().filter_map(fields).collect();
    let old = (all.iter()).find(|(controllers, _)| controllers.split(',').any(|it| it == "cpu"));
    if let Some((_, path)) = old {
        return Some((Path::new(GROUPS).join("cpu").join(path), true));
    }
    let new = all.iter().find(|(controllers, _)| controllers.is_empty());
    new.map(|(_, path)| (Path::new(GROUPS).join(path), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_found() {
        let first = "5:memory:/a\n4:cpu,cpuacct:/b/c\n0::/\n";
        assert_eq!(
            home(first),
            Some((PathBuf::from("/sys/fs/cgroup/cpu/b/c"), true))
        );
        let second = "0::/user.slice/x\n";
        let dir = PathBuf::from("/sys/fs/cgroup/user.slice/x");
        assert_eq!(home(second), Some((dir, false)));
        assert_eq!(home("5:memory:/a\n"), None);
    }
}
