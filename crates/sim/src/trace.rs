//! What happened, as a hash for every run and as lines for the one that is replayed.

use crate::host::Host;
use crate::queue::{MS, SECOND, Us};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Most lines that are kept; the last ones.
const MAX_LINES: usize = 2_000;
/// How long before what went wrong the lines begin.
const BEFORE: Us = 60 * SECOND;

/// About whom and until when lines are written.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The hosts of the node that it is about.
    pub subject: Vec<Host>,
    /// Whose view of it was wrong.
    pub viewer: Option<Host>,
    /// When it was found.
    pub until: Us,
}

/// The trace of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    watch: Option<Watch>,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(watch: Option<Watch>) -> Self {
        Self {
            watch,
            ..Self::default()
        }
    }

    /// Takes part in the hash, by which two runs are told apart.
    pub(crate) fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A line about a node, as seen by somebody or as it is in truth.
    pub(crate) fn line(
        &mut self,
        now: Us,
        subject: Host,
        viewer: Option<Host>,
        text: impl FnOnce() -> String,
    ) {
        let Some(watch) = &self.watch else { return };
        let in_time = (watch.until.saturating_sub(BEFORE)..=watch.until).contains(&now);
        if in_time && watch.subject.contains(&subject) {
            self.write(now, viewer, &text());
        }
    }

    /// A line about whose view was wrong, or about all.
    pub(crate) fn line_of_viewer(
        &mut self,
        now: Us,
        viewer: Option<Host>,
        text: impl FnOnce() -> String,
    ) {
        let Some(watch) = &self.watch else { return };
        let in_time = (watch.until.saturating_sub(BEFORE)..=watch.until).contains(&now);
        if in_time && (viewer.is_none() || viewer == watch.viewer) {
            self.write(now, viewer, &text());
        }
    }

    fn write(&mut self, now: Us, viewer: Option<Host>, text: &str) {
        let mut line = String::new();
        let (s, ms) = (now / SECOND, now % SECOND / MS);
        let by = viewer.map_or("truth".to_owned(), |host| format!("by o{}", host.0));
        write!(line, "{s:>6}.{ms:03} {by:<6} {text}").expect("writing to a String cannot fail");
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
