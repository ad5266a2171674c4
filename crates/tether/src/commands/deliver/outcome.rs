//! Who took a message, and who did not: said as it comes in, and counted.

use crate::exit::NotReady;
use crate::stderr;
use anyhow::bail;
use std::collections::BTreeSet;
use std::fmt;
use tether_wire::NodeId;

/// An orchestrator, or where one is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Node(NodeId),
    /// The one behind the admin endpoint, where it does not say who it is.
    Admin,
    /// Whoever would be found on the DHT.
    Dht,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "orchestrator {}", id.short()),
            Self::Admin => f.write_str("the orchestrator of --admin"),
            Self::Dht => f.write_str("the DHT"),
        }
    }
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    took: BTreeSet<Who>,
    /// They heard it, and are what it takes back.
    fallen: BTreeSet<Who>,
    /// Words of those who proved to be orchestrators and refused it.
    refused: Vec<String>,
    /// Those who could not be reached yet.
    missed: BTreeSet<Who>,
}

impl Outcome {
    pub(super) fn takes(&mut self, who: Who) {
        self.missed.remove(&who);
        if !self.took.contains(&who) {
            stderr::line(format_args!("{who} took it"));
            self.took.insert(who);
        }
    }

    pub(super) fn falls(&mut self, who: Who) {
        self.missed.remove(&who);
        if !self.fallen.contains(&who) {
            stderr::line(format_args!(
                "note: {who} does not count: it is what is revoked"
            ));
            self.fallen.insert(who);
        }
    }

    pub(super) fn refuses(&mut self, why: String) {
        stderr::line(format_args!("note: not taken: {why}"));
        self.refused.push(why);
    }

    /// It may be reached yet: what is said of it is said once.
    pub(super) fn misses(&mut self, who: Who, why: impl fmt::Display) {
        if self.missed.insert(who) {
            stderr::line(format_args!("note: not taken: {why}"));
        }
    }

    /// Whether this one need not be told again.
    pub(super) fn has_told(&self, id: NodeId) -> bool {
        let who = Who::Node(id);
        self.took.contains(&who) || self.fallen.contains(&who)
    }

    /// Whether anybody took it who is not revoked by it.
    pub(crate) fn is_taken(&self) -> bool {
        !self.took.is_empty()
    }

    /// Says how many took it; fails where nobody did.
    pub(crate) fn report(&self) -> anyhow::Result<()> {
        match self.took.len() {
            0 => {}
            1 => {
                stderr::line("1 orchestrator took it and passes it on");
                return Ok(());
            }
            count => {
                stderr::line(format_args!("{count} orchestrators took it and pass it on"));
                return Ok(());
            }
        }
        if !self.refused.is_empty() {
            bail!("nobody took it: {}", self.refused.join("; "));
        }
        let why = if self.fallen.is_empty() {
            "nobody took it: no orchestrator was reached; check --bootstrap and --region, or --admin, and send it again"
        } else {
            "nobody took it who counts: no orchestrator was reached but what is revoked; name another by --orchestrator, --region or --admin, and send it again"
        };
        Err(NotReady(why.to_owned()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> Who {
        Who::Node(NodeId([n; 32]))
    }

    fn words(outcome: &Outcome) -> (bool, String) {
        let error = outcome.report().expect_err("nobody took it");
        (error.is::<NotReady>(), error.to_string())
    }

    #[test]
    fn what_is_revoked_does_not_count_as_told() {
        let mut outcome = Outcome::default();
        let (is_missed, why) = words(&outcome);
        assert!(is_missed && why.contains("no orchestrator was reached"));
        outcome.falls(node(1));
        assert!(!outcome.is_taken() && outcome.has_told(NodeId([1; 32])));
        let (is_missed, why) = words(&outcome);
        assert!(is_missed && why.contains("but what is revoked"), "{why}");
        outcome.takes(node(2));
        assert!(outcome.is_taken());
        outcome.report().expect("another took it");
    }

    #[test]
    fn who_was_missed_first_may_take_it_later_and_a_refusal_is_no_miss() {
        let mut outcome = Outcome::default();
        outcome.misses(node(1), "away");
        outcome.refuses("orchestrator 2: never".to_owned());
        let (is_missed, why) = words(&outcome);
        assert!(!is_missed && why.contains("never"), "{why}");
        outcome.takes(node(1));
        outcome.takes(node(1));
        assert_eq!((outcome.took.len(), outcome.missed.len()), (1, 0));
        outcome.report().expect("one took it");
    }
}
