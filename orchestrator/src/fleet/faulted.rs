//! Models that live workers name among their faults: they exist, and nobody serves them now.
//!
//! The difference is that of "not now" and "no such thing" to the tenant, so it is looked up for
//! each request that finds no model. Both numbers of entries are bounded, those of strangers apart:
//! what they name takes no room from the others.

use super::worker::WorkerView;
use std::collections::BTreeMap;
use tether_wire::{ModelName, ModelRef, NodeId, Tier};

/// Most faults that are kept, one for each worker and model. What is beyond reads as unknown.
pub const MAX_FAULTED: usize = 16_384;
/// Most of them that untrusted workers name.
pub const MAX_UNTRUSTED_FAULTED: usize = 4_096;
/// Longest word for the kind of a fault.
const MAX_CODE_BYTES: usize = 32;

/// A version by its numbers; none where a worker was told a bare name.
type Version = Option<(u32, u32)>;

/// What is named by whom. A copy is as large as what it copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faulted {
    named: BTreeMap<ModelName, BTreeMap<(Version, NodeId), Fault>>,
    len: usize,
    untrusted: usize,
}

#[derive(Clone, Debug)]
struct Fault {
    tier: Tier,
    code: Option<String>,
}

impl Faulted {
    /// Whether there is anything to enter or to take out of a worker's card.
    pub(crate) fn concerns(worker: &WorkerView) -> bool {
        let faults = &worker.card().faults;
        faults.iter().any(|fault| named(&fault.model).is_some())
    }

    /// Keeps what a worker names, as far as there is room.
    pub(crate) fn enter(&mut self, worker: &WorkerView) {
        let tier = worker.tier;
        for fault in &worker.card().faults {
            let Some((name, version)) = named(&fault.model) else {
                continue;
            };
            if !self.has_room(tier) {
                return;
            }
            let code = code(&fault.reason).map(str::to_owned);
            let workers = self.named.entry(name).or_default();
            if (workers.insert((version, worker.id()), Fault { tier, code })).is_none() {
                self.len += 1;
                self.untrusted += usize::from(tier == Tier::Untrusted);
            }
        }
    }

    /// Forgets what a worker named.
    pub(crate) fn leave(&mut self, worker: &WorkerView) {
        for fault in &worker.card().faults {
            let Some((name, version)) = named(&fault.model) else {
                continue;
            };
            let Some(workers) = self.named.get_mut(&name) else {
                continue;
            };
            if let Some(gone) = workers.remove(&(version, worker.id())) {
                self.len -= 1;
                self.untrusted -= usize::from(gone.tier == Tier::Untrusted);
            }
            if workers.is_empty() {
                self.named.remove(&name);
            }
        }
    }

    fn has_room(&self, tier: Tier) -> bool {
        self.len < MAX_FAULTED && (tier == Tier::Trusted || self.untrusted < MAX_UNTRUSTED_FAULTED)
    }

    /// Whether a worker names this model, of any version where none is given, and the kind of its
    /// fault, where it has a word for it. Trusted workers come first. Only versions that `may` be told
    /// of count.
    pub(crate) fn find(
        &self,
        name: &ModelName,
        version: Version,
        may: impl Fn((u32, u32)) -> bool,
    ) -> Option<Option<&str>> {
        let meant = |its: &Version| {
            (version.is_none() || its.is_none() || *its == version) && its.is_none_or(&may)
        };
        let workers = self.named.get(name)?.iter();
        let meant = workers.filter(|((its, _), _)| meant(its));
        let first = meant.min_by_key(|(_, fault)| fault.tier == Tier::Untrusted);
        first.map(|(_, fault)| fault.code.as_deref())
    }

    #[cfg(test)]
    fn is_spent(&self) -> bool {
        self.named.is_empty() && (self.len, self.untrusted) == (0, 0)
    }
}

/// A model as tenants and faults name it, `NAME` or `NAME@MAJOR.MINOR`; a folder has no name.
pub(super) fn named(text: &str) -> Option<(ModelName, Version)> {
    if text.contains('@') {
        let model: ModelRef = text.parse().ok()?;
        let version = model.version.numbers();
        return Some((model.name, Some(version)));
    }
    Some((ModelName::new(text).ok()?, None))
}

/// The kind of a fault: what stands before its words. The words are for operators, since they may
/// name files of the worker's machine.
fn code(reason: &str) -> Option<&str> {
    let (code, _) = reason.split_once(':').unwrap_or((reason, ""));
    let is_code = |it: &str| it.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (!code.is_empty() && code.len() <= MAX_CODE_BYTES && is_code(code)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Offering, Roster};
    use crate::testing::{card, id, region, there};
    use std::sync::Arc;
    use tether_wire::beat::NodeState;
    use tether_wire::card::ModelFault;

    fn worker(n: u16, tier: Tier, faults: &[(&str, &str)]) -> WorkerView {
        let mut card = card().worker.expect("a worker");
        let fault = |(model, reason): &(&str, &str)| ModelFault {
            model: (*model).to_owned(),
            reason: (*reason).to_owned(),
        };
        card.faults = faults.iter().map(fault).collect();
        WorkerView {
            id: id(n),
            offering: Arc::new(Offering {
                region: region("local"),
                card,
            }),
            live: Arc::default(),
            tier,
            state: NodeState::Serving,
        }
    }

    fn found<'a>(faulted: &'a Faulted, name: &str, version: Version) -> Option<Option<&'a str>> {
        faulted.find(&ModelName::new(name).expect("valid"), version, |_| true)
    }

    #[test]
    fn a_model_is_named_by_version_or_by_its_name_alone_until_the_worker_goes() {
        let one = worker(
            1,
            Tier::Trusted,
            &[
                ("tiny@1.0", "memory-strained: 12 MiB"),
                ("big", "/srv/models: no such file"),
                ("/srv/models/tiny", "corrupt-file: x"),
            ],
        );
        let mut faulted = Faulted::default();
        faulted.enter(&one);
        faulted.enter(&one);
        let strained = Some(Some("memory-strained"));
        assert_eq!(found(&faulted, "tiny", None), strained);
        assert_eq!(found(&faulted, "tiny", Some((1, 0))), strained);
        assert_eq!(found(&faulted, "tiny", Some((1, 1))), None);
        let words_are_kept_back = Some(None);
        assert_eq!(found(&faulted, "big", Some((7, 1))), words_are_kept_back);
        assert_eq!(found(&faulted, "srv", None), None);
        faulted.leave(&one);
        assert!(faulted.is_spent());
    }

    #[test]
    fn what_a_trusted_worker_says_comes_before_what_strangers_say() {
        let mut faulted = Faulted::default();
        for n in 1..9 {
            faulted.enter(&worker(n, Tier::Untrusted, &[("tiny@1.0", "hacked: x")]));
        }
        faulted.enter(&worker(9, Tier::Trusted, &[("tiny@1.0", "starting: x")]));
        assert_eq!(found(&faulted, "tiny", None), Some(Some("starting")));
    }

    #[test]
    fn strangers_fill_their_own_room_alone_and_give_it_back() {
        let names: Vec<String> = (0..64).map(|n| format!("m{n}@1.0")).collect();
        let faults: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let mut faulted = Faulted::default();
        let strangers: Vec<_> = (0..100)
            .map(|n| worker(n, Tier::Untrusted, &faults))
            .collect();
        strangers.iter().for_each(|it| faulted.enter(it));
        assert_eq!(faulted.len, MAX_UNTRUSTED_FAULTED);
        faulted.enter(&worker(999, Tier::Trusted, &[("tiny@1.0", "x")]));
        assert_eq!(found(&faulted, "tiny", None), Some(Some("x")));
        let trusted: Vec<_> = (200..500)
            .map(|n| worker(n, Tier::Trusted, &faults))
            .collect();
        trusted.iter().for_each(|it| faulted.enter(it));
        assert_eq!(faulted.len, MAX_FAULTED);
        strangers
            .iter()
            .chain(&trusted)
            .for_each(|it| faulted.leave(it));
        faulted.leave(&worker(999, Tier::Trusted, &[("tiny@1.0", "x")]));
        assert!(faulted.is_spent());
    }

    #[test]
    fn a_new_card_replaces_what_the_one_before_named() {
        let mut roster = Roster::default();
        let fault = |model: &str| ModelFault {
            model: model.to_owned(),
            reason: "cpu-strained".to_owned(),
        };
        there(&mut roster, 1, |it| {
            it.worker.models.clear();
            it.worker.faults = vec![fault("every model"), fault("big@2.0")];
        });
        let fleet = roster.snapshot();
        assert_eq!(fleet.withheld("big@2.0"), Some(Some("cpu-strained")));
        assert_eq!(fleet.withheld("big"), Some(Some("cpu-strained")));
        assert_eq!(fleet.withheld("big@1.0"), None);
        there(&mut roster, 1, |_| ());
        assert_eq!(roster.snapshot().withheld("big"), None);
        assert_eq!(
            fleet.withheld("big"),
            Some(Some("cpu-strained")),
            "as it was"
        );
    }
}
