//! How much memory an engine may use, and whether it keeps to it. (WRK-3)
//!
//! Three walls, of which the kernel keeps those that the machine has: a control group's
//! `memory.max`; RLIMIT_DATA, which every Linux has; and the worker, which reads the resident size
//! at each tick. The last one notices a leak before the others end it in the middle of something,
//! and knows the reason.

use std::fs;

/// How many times its files a model may fill: once mapped or read, twice more when 16 bit floats
/// are made 32 bit ones, and once for caches of what was read.
const FILES_FACTOR: u64 = 4;
/// What an engine may fill besides: code, tokenizer, activations, keys and values of a context.
const BASE_BYTES: u64 = 2 << 30;
/// RLIMIT_DATA counts what is reserved, as stacks of threads, not what is filled.
const RESERVED_BYTES: u64 = 512 << 20;
/// Most threads of an engine: one that makes more is not computing.
pub(crate) const MAX_THREADS: u64 = 1_024;

/// The limit of an engine: `configured_mib`, or, where that is 0, 4 × the bytes of the model's
/// files + 2 GiB.
#[must_use]
pub(crate) fn limit(configured_mib: u64, model_bytes: u64) -> u64 {
    match configured_mib {
        0 => model_bytes
            .saturating_mul(FILES_FACTOR)
            .saturating_add(BASE_BYTES),
        mib => mib.saturating_mul(1 << 20),
    }
}

/// RLIMIT_DATA for such a limit: an eighth and half a GiB above it, so that it is the worker that
/// notices a leak, and the kernel only what is faster than its ticks.
pub(crate) fn data_limit(limit: u64) -> u64 {
    limit
        .saturating_add(limit / 8)
        .saturating_add(RESERVED_BYTES)
}

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
}

/// Reads it; nothing where the system does not say.
pub(crate) fn usage(pid: u32) -> Option<Use> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Of `/proc/PID/status` (proc_pid_status(5)). A process that has ended has no size.
fn parse(status: &str) -> Option<Use> {
    let value = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some(Use {
        resident_bytes: value("VmRSS:")?.saturating_mul(1_024),
        threads: value("Threads:")?,
    })
}

/// Why an engine has to end, if it does.
pub(crate) fn excess(used: Use, limit_bytes: u64) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    if limit_bytes > 0 && used.resident_bytes > limit_bytes {
        return Some(format!(
            "it used {} MiB of memory, more than its limit of {} MiB (worker.engine.memory_limit_mib)",
            mib(used.resident_bytes),
            mib(limit_bytes)
        ));
    }
    (used.threads > MAX_THREADS).then(|| {
        format!(
            "it had {} threads, more than its limit of {MAX_THREADS}",
            used.threads
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_from_the_model_unless_it_is_set() {
        assert_eq!(limit(100, 1 << 40), 100 << 20);
        assert_eq!(limit(0, 0), 2 << 30);
        assert_eq!(limit(0, 1 << 30), 6 << 30);
        assert_eq!(limit(0, u64::MAX), u64::MAX);
        assert!(data_limit(1 << 30) > 1 << 30);
        assert_eq!(data_limit(u64::MAX), u64::MAX);
    }

    #[test]
    fn size_and_threads_are_read_from_what_the_kernel_writes() {
        let status = "Name:\tVmRSS: 7\nVmHWM:\t  9000 kB\nVmRSS:\t    1025 kB\nThreads:\t14\n";
        let used = parse(status).expect("parses");
        assert_eq!(used.threads, 14);
        assert_eq!(used.resident_bytes, 1_025 * 1_024);
        assert_eq!(parse("Name:\ta\nState:\tZ (zombie)\nThreads:\t1\n"), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        let used = usage(std::process::id()).expect("reads");
        assert!(used.resident_bytes > 1 << 20, "{used:?}");
        assert!(used.threads >= 1);
    }

    #[test]
    fn only_what_is_over_a_limit_ends() {
        let used = |resident_bytes, threads| Use {
            resident_bytes,
            threads,
        };
        assert_eq!(excess(used(100 << 20, 8), 100 << 20), None);
        assert_eq!(excess(used(u64::MAX, 8), 0), None, "no limit");
        let why = excess(used(101 << 20, 8), 100 << 20).expect("over");
        assert!(why.contains("101 MiB") && why.contains("100 MiB"), "{why}");
        let why = excess(used(0, MAX_THREADS + 1), 0).expect("over");
        assert!(why.contains("threads"), "{why}");
    }
}
