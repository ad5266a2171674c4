//! Bounds the log files of the workers while they run.
//!
//! A worker writes to its file itself, at its end, and through no pipe of ours: so it never waits
//! for us, and its last words are there also when both processes are killed. We look now and then,
//! and when a file is large its content moves to the one old file and it begins again. A line that
//! is written just then may be lost.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// Size from which a log begins again. With the old one, a worker has about twice as much.
const MAX_BYTES: u64 = 10 << 20;
/// How often sizes are looked at: what can be written meanwhile comes on top.
const INTERVAL: Duration = Duration::from_secs(2);

/// Where the content before the present one is kept.
fn old(log: &Path) -> PathBuf {
    log.with_extension("log.old")
}

/// Begins a log anew at the start of `up`: that of an earlier run would only mislead.
pub(crate) fn begin(log: &Path) {
    // There may be none.
    let _ = fs::rename(log, old(log));
}

/// Keeps the logs bounded, for ever.
pub(crate) async fn keep_bounded(logs: Vec<PathBuf>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        for log in logs.clone() {
            let done = tokio::task::spawn_blocking(move || {
                bound(&log, MAX_BYTES).map_err(|error| (log, error))
            });
            if let Ok(Err((log, error))) = done.await {
                warn!("cannot bound {}: {error}", log.display());
            }
        }
    }
}

/// Moves the content of a log to the old one, if there is more than `max_bytes`.
///
/// The file stays the same, since the worker has it open; it writes at the end, wherever that is.
fn bound(log: &Path, max_bytes: u64) -> io::Result<()> {
    if fs::metadata(log)?.len() <= max_bytes {
        return Ok(());
    }
    fs::copy(log, old(log))?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_grows_for_ever_takes_bounded_space_and_keeps_the_latest() {
        const MAX: u64 = 1_000;
        let dir = tempfile::tempdir().expect("temporary folder");
        let log = dir.path().join("worker.log");
        // As the worker has it: opened once, and written at its end.
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("opened");
        for line in 0..1_000 {
            writeln!(writer, "line {line}").expect("written");
            bound(&log, MAX).expect("bounded");
            let sizes = [&log, &old(&log)].map(|file| fs::metadata(file).map_or(0, |m| m.len()));
            assert!(sizes.iter().all(|size| *size <= MAX + 10), "{sizes:?}");
        }
        let read = |file| fs::read_to_string(file).expect("read");
        let text = read(old(&log)) + &read(log);
        assert!(text.ends_with("line 999\n"), "{text}");
        let first: usize = text[5..]
            .lines()
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a line");
        let lines: Vec<String> = (first..1_000).map(|line| format!("line {line}")).collect();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            lines,
            "no line is missing"
        );
        assert!(lines.len() > 90, "as much as was promised: {}", lines.len());
    }
}
