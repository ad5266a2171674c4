//! One end of an engine each: when its worker says so, how its answer ends, and when it is back.

use super::found::{Ended, Found};
use crate::cost;
use crate::load::{Caller, Question};
use crate::mesh::{Mesh, PATIENCE, send};
use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Pause between two looks at the worker's log: as exact as the times are.
const LOOK: Duration = Duration::from_millis(5);

/// For how long processes are watched to see which of them computes.
const WATCHED: Duration = Duration::from_millis(100);

/// How an engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// By `kill -9`.
    Killed,
    /// By the signal that `abort` raises.
    Aborted,
    /// It stands still, with its socket open.
    Stopped,
}

impl Fate {
    pub(super) const ALL: [Self; 3] = [Self::Killed, Self::Aborted, Self::Stopped];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Killed => "killed by `kill -9`",
            Self::Aborted => "ended by SIGABRT",
            Self::Stopped => "stopped by SIGSTOP",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Killed => Signal::KILL,
            Self::Aborted => Signal::ABORT,
            Self::Stopped => Signal::STOP,
        }
    }

    /// The cause and a word of the reason by which the worker tells it.
    pub(super) fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Killed => ("engine-crash", "SIGKILL"),
            Self::Aborted => ("engine-crash", "SIGABRT"),
            Self::Stopped => ("engine-hang", "hung"),
        }
    }
}

/// What a worker logged of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Loaded {
        model: String,
        pid: u32,
    },
    Down {
        model: String,
        cause: String,
        reason: String,
    },
}

impl Entry {
    fn of(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |field: &str| line[field].as_str().map(str::to_owned);
        match line["message"].as_str()? {
            "model loaded" => Some(Self::Loaded {
                model: text("model")?,
                pid: u32::try_from(line["pid"].as_u64()?).ok()?,
            }),
            "the engine is down and will be started again" => Some(Self::Down {
                model: text("model")?,
                cause: text("cause")?,
                reason: text("reason")?,
            }),
            _ => None,
        }
    }

    fn model(&self) -> &str {
        match self {
            Self::Loaded { model, .. } | Self::Down { model, .. } => model,
        }
    }
}

/// A worker whose engines end.
pub(super) struct Fates {
    mesh: Mesh,
    caller: Caller,
    log: PathBuf,
    pub(super) found: Found,
}

impl Fates {
    pub(super) async fn new(mesh: Mesh, caller: Caller, processes: u16) -> anyhow::Result<Self> {
        let log = mesh.workers[0].seat.log();
        let fates = Self {
            mesh,
            caller,
            log,
            found: Found::default(),
        };
        for model in fates.models() {
            fates.loaded(&model, usize::from(processes)).await?;
        }
        Ok(fates)
    }

    pub(super) fn models(&self) -> Vec<String> {
        self.mesh.site.models.clone()
    }

    /// An engine ends in the middle of a long answer, and comes back.
    pub(super) async fn end(&mut self, fate: Fate, long: &Question) -> anyhow::Result<()> {
        let (began, begun) = oneshot::channel();
        let mut began = Some(began);
        let (caller, question) = (self.caller.clone(), long.clone());
        let answer = tokio::spawn(async move {
            let told = |_: &str| {
                let _ = began.take().map(|it| it.send(()));
            };
            caller.ask(&question, told).await
        });
        ensure!(
            tokio::time::timeout(PATIENCE, begun)
                .await
                .is_ok_and(|it| it.is_ok()),
            "no answer of {} begins",
            long.model
        );
        let pid = self.busiest(&long.model).await?;
        let from = std::fs::metadata(&self.log)?.len();
        let at = Instant::now();
        send(pid, fate.signal())?;
        let model = long.model.as_str();
        let down = self.next(from, |it| {
            matches!(it, Entry::Down { .. }) && names(it, model)
        });
        let down = down.await?;
        let detected = at.elapsed();
        let answer = answer.await?;
        let told = (answer.at + answer.took).saturating_duration_since(at);
        self.next(from, |entry| is_loaded(entry, model)).await?;
        let back = at.elapsed();
        let Entry::Down { cause, reason, .. } = down else {
            unreachable!("was asked for");
        };
        let (right_cause, word) = fate.told();
        self.found.ended.push(Ended {
            fate,
            model: model.to_owned(),
            at,
            detected,
            told,
            back,
            is_told_rightly: cause == right_cause && reason.contains(word),
            reason,
            answer,
        });
        Ok(())
    }

    /// The process of a model's engine that gives the long answer: the one that computes most.
    async fn busiest(&self, model: &str) -> anyhow::Result<u32> {
        let alive = cost::children(self.mesh.workers[0].process()?.pid());
        let processes = self.entries(0)?.into_iter().filter_map(|it| match it {
            Entry::Loaded { model: named, pid } if is_of(&named, model) => Some(pid),
            _ => None,
        });
        let processes: Vec<u32> = processes.filter(|it| alive.contains(it)).collect();
        if let [only] = processes[..] {
            return Ok(only);
        }
        let before: Vec<_> = processes.iter().map(|it| cost::spent(*it)).collect();
        tokio::time::sleep(WATCHED).await;
        let took = processes.iter().zip(before).filter_map(|(pid, before)| {
            let took = cost::spent(*pid).ok()?.since(&before.ok()?);
            Some((*pid, took.process))
        });
        let busiest = took.max_by(|a, b| a.1.total_cmp(&b.1));
        let (pid, _) = busiest.with_context(|| format!("{model} is not loaded"))?;
        Ok(pid)
    }

    /// Waits until a model is loaded in so many processes.
    async fn loaded(&self, model: &str, processes: usize) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let entries = self.entries(0)?;
            if entries.iter().filter(|it| is_loaded(it, model)).count() >= processes {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "{model} is not loaded in {processes} processes"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The first entry from a byte on that is asked for, once it is there.
    async fn next(&self, from: u64, wanted: impl Fn(&Entry) -> bool) -> anyhow::Result<Entry> {
        let begin = Instant::now();
        loop {
            if let Some(entry) = self.entries(from)?.into_iter().find(&wanted) {
                return Ok(entry);
            }
            ensure!(begin.elapsed() < PATIENCE, "the worker logs nothing of it");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn entries(&self, from: u64) -> anyhow::Result<Vec<Entry>> {
        let bytes = std::fs::read(&self.log)?;
        let from = usize::try_from(from)?.min(bytes.len());
        // A line that is still being written is no JSON, and passed over.
        let text = String::from_utf8_lossy(&bytes[from..]);
        Ok(text.lines().filter_map(Entry::of).collect())
    }
}

/// Whether `NAME@VERSION` is that name's.
fn is_of(named: &str, model: &str) -> bool {
    named.split('@').next() == Some(model)
}

fn names(entry: &Entry, model: &str) -> bool {
    is_of(entry.model(), model)
}

fn is_loaded(entry: &Entry, model: &str) -> bool {
    matches!(entry, Entry::Loaded { .. }) && names(entry, model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_logs_of_engines_is_understood() {
        let loaded = r#"{"message":"model loaded","model":"a@1.0","pid":7,"load_ms":3}"#;
        let entry = Entry::of(loaded).expect("an entry");
        assert!(is_loaded(&entry, "a") && !is_loaded(&entry, "a-1"));
        let down = r#"{"message":"the engine is down and will be started again","model":"a-1@1.0","cause":"engine-hang","reason":"the engine hung: x","wait_ms":1}"#;
        let entry = Entry::of(down).expect("an entry");
        assert!(names(&entry, "a-1") && !is_loaded(&entry, "a-1"));
        assert_eq!(Entry::of("{\"message\":\"other\"}"), None);
    }
}
