//! Memory and processor time of processes, from `/proc`.

use anyhow::Context;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Ticks of `/proc/PID/stat` in a second: what Linux tells programs, whatever it counts itself.
const TICKS_PER_S: f64 = 100.0;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Processor time of a process so far, in seconds; by thread, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    at: Option<Instant>,
    process_s: f64,
    threads: BTreeMap<u32, (String, f64)>,
}

/// What a process took between two looks, in shares of one core.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) process: f64,
    /// The thread that took most, and its name.
    pub(crate) busiest: (String, f64),
}

/// Resident bytes of a process now.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("/proc tells no VmRSS")? * 1024)
}

/// Process ids of the children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    (tasks.into_iter().flatten().flatten())
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Processor time of a process so far.
pub(crate) fn spent(pid: u32) -> anyhow::Result<Spent> {
    let process_s = seconds(&read(pid, "stat")?)
        .context("an unknown form of /proc/PID/stat")?
        .1;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")?;
    let threads = (tasks.flatten())
        .filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            Some((id, seconds(&stat)?))
        })
        .collect();
    Ok(Spent {
        at: Some(Instant::now()),
        process_s,
        threads,
    })
}

impl Spent {
    /// What was taken since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Share {
        let wall_s = match (self.at, earlier.at) {
            (Some(now), Some(then)) => now.duration_since(then).as_secs_f64(),
            _ => f64::INFINITY,
        };
        let before = |id: &u32| earlier.threads.get(id).map_or(0.0, |(_, s)| *s);
        let busiest = (self.threads.iter())
            .map(|(id, (name, s))| (name.clone(), (s - before(id)) / wall_s))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or_default();
        Share {
            process: (self.process_s - earlier.process_s) / wall_s,
            busiest,
        }
    }
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// Name and seconds on the processor, user and system, of a `stat` file.
fn seconds(stat: &str) -> Option<(String, f64)> {
    // The name is in brackets and may hold anything, brackets too.
    let (start, rest) = stat.rsplit_once(')')?;
    let name = start.split_once('(')?.1.to_owned();
    let field = |at: usize| rest.split_whitespace().nth(at)?.parse::<f64>().ok();
    Some((name, (field(11)? + field(12)?) / TICKS_PER_S))
}

/// Looks at the memory of a process until it is asked for the most that was seen.
pub(crate) struct MemoryWatch {
    most: std::sync::Arc<std::sync::atomic::AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl MemoryWatch {
    pub(crate) fn start(pid: u32) -> Self {
        let most = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = most.clone();
        let task = tokio::spawn(async move {
            while let Ok(bytes) = resident_bytes(pid) {
                seen.fetch_max(bytes, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(LOOK).await;
            }
        });
        Self {
            most,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn most(&self) -> u64 {
        self.most.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Bytes as MiB, for tables.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_brackets_in_its_name_is_read_rightly() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1";
        assert_eq!(seconds(stat), Some(("a (b) c".to_owned(), 3.0)));
        assert_eq!(seconds("nonsense"), None);
    }

    #[test]
    fn shares_are_of_one_core_between_two_looks() {
        let now = Instant::now();
        let look = |after_s: u64, process_s, thread_s| Spent {
            at: Some(now + Duration::from_secs(after_s)),
            process_s,
            threads: BTreeMap::from([
                (1, ("main".to_owned(), 1.0)),
                (2, ("worker".to_owned(), thread_s)),
            ]),
        };
        let share = look(10, 8.0, 5.0).since(&look(0, 3.0, 1.0));
        assert_eq!(share.process, 0.5);
        assert_eq!(share.busiest, ("worker".to_owned(), 0.4));
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).expect("Linux") > 0);
        assert!(!spent(pid).expect("Linux").threads.is_empty());
    }
}
