//! Many workers: what is kept ready of them, and that strangers do not crowd out others.

use super::group::{AWAY, Group, HERE, Kind, RANKED, TOP};
use super::index::RANK_MS;
use super::merit::Merits;
use super::*;
use crate::score::Weights;
use crate::testing::{Says, id, offer, region, there};
use crate::warmth::Warm;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use tether_presence::{Effect, Gone};
use tether_wire::{Digest, ModelRef, NodeId, Tier};

fn model() -> ModelRef {
    "tiny@1.0".parse().expect("valid")
}

fn candidates(fleet: &Snapshot, seed: u64) -> Vec<Candidate> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (digest, here) = (Digest([7; 32]), region("local"));
    let found = fleet.candidates((&model(), &digest), &here, &Warm::default(), &mut rng);
    found.into_iter().map(Found::to_owned).collect()
}

/// Those of the trusted here that are kept ready.
fn ready(roster: &Roster) -> Vec<Candidate> {
    roster.index().ready(&kind(7))
}

/// Those who offer this artifact, are trusted and here.
fn kind(digest: u8) -> Kind {
    Kind {
        model: model(),
        digest: Digest([digest; 32]),
        tier: Tier::Trusted,
        region: region("local"),
    }
}

fn ids(candidates: &[Candidate]) -> BTreeSet<NodeId> {
    candidates.iter().map(|it| it.worker.id()).collect()
}

fn crowd(size: u16, change: impl Fn(u16, &mut Says)) -> Roster {
    let mut roster = Roster::new(merits());
    for n in 0..size {
        there(&mut roster, n, |it| change(n, it));
    }
    roster.rank(RANK_MS);
    roster
}

fn merits() -> Merits {
    Merits {
        weights: Weights::default(),
        seed: 1,
    }
}

#[test]
fn of_many_some_are_looked_at_each_once_and_others_at_another_time() {
    let roster = crowd(400, |_, _| ());
    let fleet = roster.snapshot();
    assert_eq!(ready(&roster).len(), TOP);
    let first = candidates(&fleet, 1);
    assert_eq!(first.len(), HERE.all);
    assert_eq!(ids(&first).len(), first.len(), "nobody twice");
    let seen: BTreeSet<_> = (0..4_000)
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
    roster.rank(60_000);
    let ready = ready(&roster);
    assert!(ready.iter().all(|it| !it.worker.is_suspect()));
    let idle = ready.iter().take_while(|it| it.worker.load() == 0);
    assert_eq!(idle.count(), 50, "the best first");
    assert!(ready.iter().all(|it| it.worker.load() <= 50));
}

#[test]
fn equals_take_turns() {
    let mut roster = crowd(400, |_, _| ());
    let before = ids(&ready(&roster));
    roster.rank(60_000);
    let after = ids(&ready(&roster));
    assert!(before.intersection(&after).count() < TOP / 2);
}

#[test]
fn where_all_that_are_looked_at_first_are_doubted_the_others_that_are_ready_are_looked_at() {
    let mut roster = crowd(400, |_, _| ());
    let ready = ready(&roster);
    for candidate in &ready[..TOP - 1] {
        roster.apply(Effect::Suspect(candidate.worker.id()));
    }
    for n in 0..400 {
        if ready.iter().all(|it| it.worker.id() != id(n)) {
            roster.apply(Effect::Suspect(id(n)));
        }
    }
    let fleet = roster.snapshot();
    for seed in 0..50 {
        let found = candidates(&fleet, seed);
        let well = found.iter().filter(|it| !it.worker.is_suspect());
        assert_eq!(well.count(), 1);
        assert_eq!(ids(&found).len(), found.len(), "nobody twice");
    }
}

#[test]
fn when_those_that_were_ready_leave_as_many_others_are_looked_at_before_they_are_ranked() {
    let mut roster = crowd(300, |_, _| ());
    loop {
        let fleet = roster.snapshot();
        let found = candidates(&fleet, 1);
        assert_eq!(
            ids(&found).len(),
            fleet.len().min(HERE.all),
            "of {}",
            fleet.len()
        );
        if found.is_empty() {
            break;
        }
        // First those that are ready, until none is.
        let ready = ready(&roster);
        let leave = if ready.is_empty() { found } else { ready };
        for candidate in leave.iter().take(30) {
            roster.apply(Effect::Gone {
                node: candidate.worker.id(),
                how: Gone::Departed,
            });
        }
    }
}

#[test]
fn who_is_doubted_is_ready_no_more_after_the_next_ranking() {
    let mut roster = crowd(400, |_, _| ());
    for candidate in ready(&roster) {
        roster.apply(Effect::Suspect(candidate.worker.id()));
    }
    roster.rank(60_000);
    assert!(ready(&roster).iter().all(|it| !it.worker.is_suspect()));
}

#[test]
fn groups_are_ranked_in_turns_and_new_ones_wait_for_theirs() {
    // More than are ranked at once: the same 64 artifacts at 100 workers.
    let offers = |it: &mut Says| it.worker.models = (0..64).map(|m| offer("tiny@1.0", m)).collect();
    let mut roster = crowd(100, |_, it| offers(it));
    let all = |roster: &Roster| -> Vec<u64> {
        let waits = |m| roster.index().ranked_ms(&kind(m)).expect("there");
        (0..64).map(waits).collect()
    };
    let first = all(&roster);
    let ranked = first.iter().filter(|at_ms| **at_ms == RANK_MS).count();
    assert!((40..64).contains(&ranked), "{ranked} at once");
    // A crowd with an artifact of its own comes, and does not come first.
    for n in 200..220 {
        there(&mut roster, n, |it| {
            it.worker.models = vec![offer("tiny@1.0", 99)]
        });
    }
    let newcomers = |roster: &Roster| roster.index().ranked_ms(&kind(99)).expect("there");
    assert_eq!(newcomers(&roster), RANK_MS);
    roster.rank(2 * RANK_MS);
    let second = all(&roster);
    assert!(
        second.iter().all(|at_ms| *at_ms >= RANK_MS),
        "each had a turn"
    );
    roster.rank(3 * RANK_MS);
    assert!(newcomers(&roster) >= 2 * RANK_MS, "they have theirs");
}

#[test]
fn of_a_very_large_group_some_are_looked_at_to_rank_it_and_others_the_next_time() {
    let fleet = crowd(1, |_, _| ()).snapshot();
    let one = fleet.workers().next().expect("there");
    let mut group = Group::new(kind(7), 0);
    // The view of one under the ids of many.
    for n in 0..2 * RANKED as u64 {
        let mut view = WorkerView::clone(one);
        view.id.0[..8].copy_from_slice(&n.to_be_bytes());
        view.live = Arc::default();
        group.put(&Arc::new(view), true);
    }
    assert_eq!(group.cost(), RANKED);
    for it in group.serving().iter() {
        it.worker.live.set_suspect();
    }
    let well = group.serving().iter().nth(3 * RANKED / 2).expect("there");
    well.worker.live.set_well();
    let mut found = 0;
    let mut merits = merits();
    for turn in 0..100 {
        merits.turn();
        group.rank(&merits, turn);
        found += usize::from(!group.ready()[0].worker.is_suspect());
    }
    assert!(
        (30..70).contains(&found),
        "about every second time: {found}"
    );
}

#[test]
fn in_another_region_everybody_is_reached_and_the_least_loaded_first() {
    let elsewhere = |busy: u16| {
        crowd(30, move |n, it| {
            it.region = region("away");
            it.beat.queue_depth = if n < busy { 100 } else { 0 };
        })
    };
    let fleet = elsewhere(0).snapshot();
    let seen: BTreeSet<_> = (0..500)
        .flat_map(|seed| ids(&candidates(&fleet, seed)))
        .collect();
    assert_eq!(seen.len(), 30);
    let fleet = elsewhere(25).snapshot();
    for seed in 0..50 {
        let found = candidates(&fleet, seed);
        assert_eq!(found.len(), AWAY.all);
        assert!(found.iter().any(|it| it.worker.load() == 0));
    }
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
    let mut roster = Roster::new(merits());
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

#[test]
fn of_very_many_that_were_left_out_some_come_in_at_a_time_and_nobody_is_forgotten() {
    let strangers = u16::try_from(MAX_UNTRUSTED_GROUPS / 64).expect("small");
    let mut roster = crowd(strangers, inventive);
    let late = strangers..strangers + 1_100;
    for n in late.clone() {
        there(&mut roster, n, |it| {
            it.tier = Tier::Untrusted;
            it.worker.models = vec![offer("tiny@1.0", 0)];
            it.worker.models[0].digest.0[8..10].copy_from_slice(&n.to_be_bytes());
        });
    }
    for n in 0..strangers {
        let (node, how) = (id(n), Gone::Departed);
        roster.apply(Effect::Gone { node, how });
    }
    assert_eq!(roster.index().groups(), (0, 0));
    roster.readmit();
    assert_eq!(roster.index().groups().1, 1_024);
    roster.readmit();
    assert_eq!(roster.index().groups().1, late.len());
}
