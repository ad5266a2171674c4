//! How the catalogue follows what workers offer. Pure.

use super::{
    Catalogue, Entry, MAX_KNOWN_MODELS, MAX_NAMES_PER_WORKER, MAX_PASSING_MODELS, Standing,
};
use std::borrow::Cow;
use std::collections::BTreeSet;
use tether_wire::{Digest, ModelRef, NodeId};

/// A model that no trusted worker offered for so long is forgotten: 30 days.
pub const FORGET_MS: u64 = 30 * 24 * 3_600_000;
/// How exactly the last offer is noted: each note is a write to the disk.
const NOTE_MS: u64 = 3_600_000;

/// An artifact that is offered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Name and version.
    pub model: ModelRef,
    /// The artifact.
    pub digest: Digest,
    /// A worker that offers it; a trusted one where there is one.
    pub worker: NodeId,
    /// Whether it is trusted.
    pub trusted: bool,
}

impl Catalogue {
    /// The catalogue after a look at everything that is offered; nothing where it stays as it is.
    #[must_use]
    pub fn follow(&self, mut offered: Vec<Offered>, now_ms: u64) -> Option<Self> {
        // What trusted workers offer binds a name before what others do.
        offered.sort_by_key(|offer| (!offer.trusted, offer.worker));
        let there: BTreeSet<_> = (offered.iter())
            .map(|offer| (&offer.model, offer.digest))
            .collect();
        let mut next = Cow::Borrowed(self);
        for entry in self.entries() {
            let forgotten = match entry.standing {
                Standing::Released => false,
                Standing::Known {
                    last_offered_ms, ..
                } => now_ms.saturating_sub(last_offered_ms) >= FORGET_MS,
                Standing::Passing => !there.contains(&(&entry.model, entry.digest)),
            };
            if forgotten {
                next.to_mut().remove(&entry.model);
            }
        }
        for offer in &offered {
            if let Some(entry) = next.learn(offer, now_ms) {
                next.to_mut().add(entry);
            }
        }
        match next {
            Cow::Borrowed(_) => None,
            Cow::Owned(next) => Some(next),
        }
    }

    /// The entry that an offer makes or changes.
    fn learn(&self, offer: &Offered, now_ms: u64) -> Option<Entry> {
        let entry = |standing| Entry {
            model: offer.model.clone(),
            first_seen_ms: now_ms,
            digest: offer.digest,
            standing,
        };
        let known = |offered_by| Standing::Known {
            last_offered_ms: now_ms,
            offered_by,
        };
        let remembered = || offer.trusted && self.has_room_for(offer.worker);
        match self.get(&offer.model) {
            None if remembered() => Some(entry(known(Some(offer.worker)))),
            None if self.passing < MAX_PASSING_MODELS => Some(entry(Standing::Passing)),
            None => None,
            Some(old) => match old.standing {
                Standing::Released => None,
                Standing::Known {
                    last_offered_ms,
                    offered_by,
                } => {
                    let same = offer.trusted && offer.digest == old.digest;
                    let due = now_ms.saturating_sub(last_offered_ms) >= NOTE_MS;
                    (same && due).then(|| Entry {
                        standing: known(offered_by),
                        ..old.clone()
                    })
                }
                Standing::Passing => remembered().then(|| entry(known(Some(offer.worker)))),
            },
        }
    }

    fn has_room_for(&self, worker: NodeId) -> bool {
        let of_worker = |entry: &&Entry| matches!(entry.standing, Standing::Known { offered_by, .. } if offered_by == Some(worker));
        self.len - self.passing < MAX_KNOWN_MODELS
            && self.entries().filter(of_worker).count() < MAX_NAMES_PER_WORKER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Release;
    use tether_wire::rpc::Code;

    const HOUR: u64 = 3_600_000;

    fn offered(model: &str, digest: u8, worker: u8, trusted: bool) -> Offered {
        Offered {
            model: model.parse().expect("valid"),
            digest: Digest([digest; 32]),
            worker: NodeId([worker; 32]),
            trusted,
        }
    }

    fn after(catalogue: &Catalogue, offers: Vec<Offered>, now_ms: u64) -> Catalogue {
        (catalogue.follow(offers, now_ms)).unwrap_or_else(|| catalogue.clone())
    }

    fn resolved(catalogue: &Catalogue, text: &str) -> (String, u8) {
        let entry = catalogue.resolve(text).expect(text);
        (entry.model.to_string(), entry.digest.0[0])
    }

    #[test]
    fn what_untrusted_workers_offer_is_known_while_they_are_there_and_never_remembered() {
        let there = after(
            &Catalogue::default(),
            vec![offered("x@1.0", 7, 1, false)],
            1,
        );
        assert_eq!(resolved(&there, "x"), ("x@1.0".into(), 7));
        assert_eq!(there.known().count(), 0);
        let gone = after(&there, Vec::new(), 2);
        assert_eq!(
            gone.resolve("x@1.0").expect_err("gone").code,
            Code::NotFound
        );
        assert!(gone.is_empty());
    }

    #[test]
    fn what_trusted_workers_offer_stays_known_for_thirty_days_after_the_last_time() {
        let offer = || vec![offered("x@1.0", 7, 1, true)];
        let first = after(&Catalogue::default(), offer(), 1);
        assert!(first.follow(offer(), HOUR).is_none(), "not noted each time");
        let noted = after(&first, offer(), 2 * HOUR);
        let last = 2 * HOUR + FORGET_MS - 1;
        assert!(noted.follow(Vec::new(), last).is_none());
        assert!(after(&noted, Vec::new(), last + 1).is_empty());
        let release = Release {
            model: "x@1.0".parse().expect("valid"),
            digest: Digest([7; 32]),
            created_ms: 0,
        };
        let released = Catalogue::new(&[release], &[]);
        assert!(released.follow(Vec::new(), u64::MAX).is_none(), "for ever");
    }

    #[test]
    fn an_untrusted_worker_does_not_win_a_bare_name_over_a_trusted_one() {
        let both = vec![offered("x@99.0", 6, 1, false), offered("x@1.0", 7, 2, true)];
        let catalogue = after(&Catalogue::default(), both, 1);
        assert_eq!(resolved(&catalogue, "x"), ("x@1.0".into(), 7));
        assert_eq!(resolved(&catalogue, "x@99.0"), ("x@99.0".into(), 6));
        let later = after(&catalogue, vec![offered("x@99.0", 6, 1, false)], 2);
        assert_eq!(resolved(&later, "x").0, "x@1.0", "also while it is away");
    }

    #[test]
    fn a_name_is_bound_to_the_artifact_that_was_seen_first_and_trusted_ones_first() {
        let both = || vec![offered("x@1.0", 6, 1, false), offered("x@1.0", 7, 2, true)];
        let at_once = after(&Catalogue::default(), both(), 1);
        assert_eq!(resolved(&at_once, "x").1, 7);
        let stranger = after(&Catalogue::default(), vec![both()[0].clone()], 1);
        assert_eq!(resolved(&stranger, "x").1, 6);
        let second = vec![both()[0].clone(), offered("x@1.0", 5, 0, false)];
        assert_eq!(
            resolved(&after(&stranger, second, 2), "x").1,
            6,
            "the first"
        );
        assert_eq!(resolved(&after(&stranger, both(), 2), "x").1, 7, "trusted");
        let other = vec![offered("x@1.0", 8, 0, true), both()[1].clone()];
        assert_eq!(resolved(&after(&at_once, other, 2), "x").1, 7, "the first");
        let left = vec![offered("x@1.0", 5, 3, false)];
        assert_eq!(resolved(&after(&stranger, left, 2), "x").1, 5, "bound anew");
    }

    #[test]
    fn one_worker_cannot_fill_the_record_and_untrusted_ones_not_even_what_passes() {
        let many = |trusted: bool| {
            let offer = |n| offered(&format!("m{n}@1.0"), 7, 1, trusted);
            (0..MAX_PASSING_MODELS + 200).map(offer).collect::<Vec<_>>()
        };
        let trusted = after(&Catalogue::default(), many(true), 1);
        assert_eq!(trusted.known().count(), MAX_NAMES_PER_WORKER);
        let strangers = after(&Catalogue::default(), many(false), 1);
        assert_eq!(strangers.len(), MAX_PASSING_MODELS);
        let beside = after(&strangers, vec![offered("x@1.0", 7, 2, true)], 1);
        assert_eq!(beside.known().count(), 1, "others have room");
    }
}
