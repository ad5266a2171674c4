//! Many workers: what is kept ready of them, and that strangers do not crowd out others.

use super::group::TOP;
use super::roll::Roll;
use super::*;
use crate::testing::{Says, id, offer, region, says, there};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tether_presence::{Effect, Gone};
use tether_wire::{Digest, ModelRef, NodeId, Tier};

fn model() -> ModelRef {
    "tiny@1.0".parse().expect("valid")
}

fn candidates(fleet: &Snapshot, seed: u64) -> Vec<Candidate> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (digest, here) = (Digest([7; 32]), region("local"));
    let found = fleet.candidates(&model(), &digest, &here, &mut rng);
    found.into_iter().map(Found::to_owned).collect()
}

fn ids(candidates: &[Candidate]) -> BTreeSet<NodeId> {
    candidates.iter().map(|it| it.worker.id()).collect()
}

fn crowd(size: u16, change: impl Fn(u16, &mut Says)) -> Roster {
    let mut roster = Roster::new(1);
    for n in 0..size {
        there(&mut roster, n, |it| change(n, it));
    }
    roster.rank(0);
    roster
}

#[test]
fn of_many_some_are_looked_at_each_once_and_others_at_another_time() {
    let fleet = crowd(400, |_, _| ()).snapshot();
    let first = candidates(&fleet, 1);
    assert!(first.len() > TOP && first.len() <= TOP + 16);
    assert_eq!(ids(&first).len(), first.len(), "nobody twice");
    let seen: BTreeSet<_> = (0..2_000)
        .flat_map(|seed| ids(&candidates(&fleet, seed)))
        .collect();
    assert_eq!(seen.len(), 400, "everybody is reached sooner or later");
}

#[test]
fn the_least_loaded_are_ready_and_suspects_are_not_while_others_can_serve() {
    let mut roster = crowd(300, |n, it| it.beat.queue_depth = u32::from(n % 3) * 50);
    for n in (0..300).step_by(6) {
        roster.apply(Effect::Suspect(id(n)));
    }
    // 50 are idle and well, 100 have some work.
    let [_, news] = says(1, |it| it.beat.queue_depth = 50);
    roster.apply(news);
    roster.rank(10_000);
    let fleet = roster.snapshot();
    let ready = candidates(&fleet, 1);
    let ready = &ready[..TOP];
    assert!(ready.iter().all(|it| !it.worker.is_suspect()));
    assert_eq!(ready.iter().filter(|it| it.worker.load() == 0).count(), 50);
    assert!(ready.iter().all(|it| it.worker.load() <= 50));
}

#[test]
fn equals_take_turns() {
    let mut roster = crowd(400, |_, _| ());
    let before: BTreeSet<_> = ids(&candidates(&roster.snapshot(), 1)[..TOP]);
    let [_, news] = says(1, |_| ());
    roster.apply(news);
    roster.rank(60_000);
    let after = ids(&candidates(&roster.snapshot(), 1)[..TOP]);
    assert!(before.intersection(&after).count() < TOP / 2);
}

#[test]
fn when_those_that_were_ready_leave_others_take_their_place() {
    let mut roster = crowd(300, |_, _| ());
    while roster.snapshot().len() > TOP {
        for candidate in candidates(&roster.snapshot(), 1).iter().take(TOP) {
            roster.apply(Effect::Gone {
                node: candidate.worker.id(),
                how: Gone::Departed,
            });
        }
        let fleet = roster.snapshot();
        let ready = candidates(&fleet, 1).len();
        assert!(ready >= fleet.len().min(TOP / 2), "{ready}");
    }
    let fleet = roster.snapshot();
    assert_eq!(candidates(&fleet, 1).len(), fleet.len(), "all of the rest");
}

#[test]
fn other_regions_serve_where_the_own_one_does_not_and_strangers_crowd_out_nobody() {
    let roster = crowd(500, |n, it| match n {
        0..3 => it.region = region("away"),
        3..6 => {}
        _ => it.tier = Tier::Untrusted,
    });
    let found = ids(&candidates(&roster.snapshot(), 1));
    assert!((0..6).all(|n| found.contains(&id(n))));
    let nobody_near = crowd(20, |n, it| it.region = region(&format!("region-{n}")));
    let found = candidates(&nobody_near.snapshot(), 1);
    assert!(!found.is_empty() && found.len() < 20, "some of them");
    let mut doubted = nobody_near;
    for candidate in &found {
        doubted.apply(Effect::Suspect(candidate.worker.id()));
    }
    let more = candidates(&doubted.snapshot(), 1);
    assert!(more.iter().any(|it| !it.worker.is_suspect()), "further on");
}

/// A worker that offers 64 artifacts of its own.
fn inventive(n: u16, it: &mut Says) {
    it.tier = Tier::Untrusted;
    it.worker.models = (0..64)
        .map(|m| {
            let mut offer = offer("tiny@1.0", 0);
            offer.digest.0[..2].copy_from_slice(&n.to_be_bytes());
            offer.digest.0[2] = m;
            offer
        })
        .collect();
}

#[test]
fn inventive_strangers_leave_room_for_others_and_what_is_left_out_comes_in_later() {
    let strangers = u16::try_from(MAX_UNTRUSTED_GROUPS / 64).expect("small");
    let mut roster = Roster::new(1);
    for n in 0..strangers + 3 {
        there(&mut roster, n, |it| inventive(n, it));
    }
    let groups = (MAX_UNTRUSTED_GROUPS, MAX_UNTRUSTED_GROUPS);
    assert_eq!(roster.index().groups(), groups);
    let (trusted, left_out) = (strangers + 10, strangers + 11);
    there(&mut roster, trusted, |_| ());
    there(&mut roster, left_out, |it| {
        it.tier = Tier::Untrusted;
        it.worker.models = vec![offer("tiny@1.0", 9)];
    });
    let fleet = roster.snapshot();
    assert_eq!(ids(&candidates(&fleet, 1)), BTreeSet::from([id(trusted)]));
    let view = fleet.worker(&id(left_out)).expect("there");
    assert!(!fleet.finds(view, &view.card().models[0]));
    for n in 0..strangers + 3 {
        let (node, how) = (id(n), Gone::Departed);
        roster.apply(Effect::Gone { node, how });
    }
    roster.readmit();
    let fleet = roster.snapshot();
    let view = fleet.worker(&id(left_out)).expect("there");
    assert!(fleet.finds(view, &view.card().models[0]));
    assert_eq!(roster.index().groups(), (2, 1));
}

/// Distinct views that are made once.
fn views() -> Vec<Arc<WorkerView>> {
    let roster = crowd(200, |_, _| ());
    roster.snapshot().workers().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_roll_holds_what_was_put_and_a_copy_what_it_held(
        steps in prop::collection::vec((0..200usize, 0..4u8), 0..600)
    ) {
        thread_local!(static VIEWS: Vec<Arc<WorkerView>> = views());
        let views = VIEWS.with(Clone::clone);
        let (mut roll, mut model) = (Roll::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for (at, (n, what)) in steps.into_iter().enumerate() {
            let view = &views[n];
            if what == 0 {
                let (gone, known) = (roll.remove(&view.id()), model.remove(&view.id()));
                prop_assert_eq!(gone.is_some(), known.is_some());
            } else {
                let (old, known) = (roll.put(view.clone()), model.insert(view.id(), n));
                prop_assert_eq!(old.is_some(), known.is_some());
            }
            if at % 100 == 0 {
                copies.push((roll.clone(), model.clone()));
            }
        }
        copies.push((roll, model));
        for (roll, model) in copies {
            prop_assert_eq!(roll.len(), model.len());
            let ids: BTreeSet<_> = roll.iter().map(|view| view.id()).collect();
            prop_assert_eq!(ids, model.keys().copied().collect::<BTreeSet<_>>());
            for view in &views {
                prop_assert_eq!(roll.get(&view.id()).is_some(), model.contains_key(&view.id()));
            }
            let mut rng = StdRng::seed_from_u64(1);
            prop_assert_eq!(roll.sample(&mut rng).is_some(), !model.is_empty());
        }
    }
}
