//! What an orchestrator logged of doubts and attempts: whom it doubted, and to whom it gave requests
//! although it did. Pure but for reading the file.

use anyhow::Context;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Something that an orchestrator logged, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It began to doubt a worker.
    Suspect(String),
    /// A worker is there that was not.
    Came(String),
    /// A worker is gone.
    Gone(String),
    /// A request was given to a worker.
    Attempt(String),
}

/// Reads a log from a byte on.
pub(crate) fn read(log: &Path, from: u64) -> anyhow::Result<Vec<Entry>> {
    let bytes = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let from = usize::try_from(from)?.min(bytes.len());
    // A line that is still being written is no JSON, and passed over.
    let text = String::from_utf8_lossy(&bytes[from..]);
    Ok(text.lines().filter_map(entry).collect())
}

fn entry(line: &str) -> Option<Entry> {
    let line: Value = serde_json::from_str(line).ok()?;
    let node = |field: &str| line[field].as_str().map(str::to_owned);
    match line["message"].as_str()? {
        "node is suspect" => Some(Entry::Suspect(node("node")?)),
        "worker is there" => Some(Entry::Came(node("worker")?)),
        "worker is gone" => Some(Entry::Gone(node("worker")?)),
        // Logged for the chosen one and, after it, for the next best.
        "candidate" => {
            let worker = line["span"]["tether.worker"].as_str()?;
            let named = line["worker"].as_str()?;
            (worker.starts_with(named)).then(|| Entry::Attempt(worker.to_owned()))
        }
        _ => None,
    }
}

/// Attempts at a worker after the log says that it is doubted, or gone.
pub(crate) fn attempts_after_doubt(entries: &[Entry], worker: &str) -> usize {
    let (mut doubted, mut count) = (false, 0);
    for entry in entries {
        match entry {
            Entry::Suspect(node) if node == worker => doubted = true,
            Entry::Gone(node) if node == worker => doubted = true,
            Entry::Attempt(node) if doubted && node == worker => count += 1,
            _ => {}
        }
    }
    count
}

/// Attempts at a worker in all.
pub(crate) fn attempts(entries: &[Entry], worker: &str) -> usize {
    (entries.iter())
        .filter(|it| matches!(it, Entry::Attempt(node) if node == worker))
        .count()
}

/// Attempts at anybody.
pub(crate) fn all_attempts(entries: &[Entry]) -> usize {
    let is_attempt = |it: &&Entry| matches!(it, Entry::Attempt(_));
    entries.iter().filter(is_attempt).count()
}

/// Whether a worker is doubted, or gone.
pub(crate) fn is_doubted(entries: &[Entry], worker: &str) -> bool {
    (entries.iter())
        .any(|it| matches!(it, Entry::Suspect(node) | Entry::Gone(node) if node == worker))
}

/// Those of some that came, however often.
pub(crate) fn came<'a>(entries: &'a [Entry], some: &BTreeSet<String>) -> BTreeSet<&'a str> {
    (entries.iter())
        .filter_map(|entry| match entry {
            Entry::Came(node) if some.contains(node) => Some(node.as_str()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(worker: &str) -> Entry {
        Entry::Attempt(worker.to_owned())
    }

    #[test]
    fn lines_of_the_log_are_understood() {
        let suspect = r#"{"message":"node is suspect","node":"aa11"}"#;
        assert_eq!(entry(suspect), Some(Entry::Suspect("aa11".to_owned())));
        let chosen = r#"{"message":"candidate","worker":"aa11","suspect":false,"span":{"name":"orchestrator.attempt","tether.worker":"aa11bb22","tether.suspect":false}}"#;
        assert_eq!(entry(&chosen.replace('\n', "")), Some(attempt("aa11bb22")));
        // One that was not chosen is told in the span of the one that was.
        let other = chosen.replace("\"worker\":\"aa11\"", "\"worker\":\"cc33\"");
        assert_eq!(entry(&other.replace('\n', "")), None);
        assert_eq!(entry("not JSON"), None);
    }

    #[test]
    fn only_what_was_given_after_the_doubt_counts() {
        let doubted = Entry::Suspect("a".to_owned());
        let entries = [
            attempt("a"),
            attempt("b"),
            doubted,
            attempt("b"),
            attempt("a"),
        ];
        assert_eq!(attempts_after_doubt(&entries, "a"), 1);
        assert_eq!(attempts_after_doubt(&entries, "b"), 0);
        assert_eq!((attempts(&entries, "a"), attempts(&entries, "b")), (2, 2));
        assert_eq!(all_attempts(&entries), 4);
        assert!(is_doubted(&entries, "a") && !is_doubted(&entries, "b"));
    }
}
