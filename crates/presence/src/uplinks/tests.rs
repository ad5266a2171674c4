use super::*;
use crate::plan::{FIRST_REDIAL_MS, rendezvous};
use std::collections::BTreeSet;

const ME: NodeId = NodeId([200; 32]);

fn node(n: u32) -> NodeId {
    NodeId(Digest::of(&n.to_be_bytes()).0)
}

fn nodes(range: std::ops::Range<u32>) -> Vec<NodeId> {
    range.map(node).collect()
}

/// The best first.
fn best(range: std::ops::Range<u32>) -> Vec<NodeId> {
    rendezvous(ME, nodes(range), usize::MAX)
}

fn up(ids: &[NodeId]) -> Vec<(NodeId, bool)> {
    ids.iter().map(|id| (*id, false)).collect()
}

fn set(ids: &[NodeId]) -> BTreeSet<NodeId> {
    ids.iter().copied().collect()
}

/// Time passes and everybody is dialled; those of `alive` answer. The dials, in their order.
fn settle(plan: &mut Uplinks, alive: &[NodeId], from_ms: u64, until_ms: u64) -> Vec<NodeId> {
    let mut dialled = Vec::new();
    let mut now_ms = from_ms;
    while now_ms <= until_ms {
        let mut links: Vec<NodeId> = plan.chosen();
        links.extend(plan.surplus());
        for id in plan.take_due(now_ms) {
            dialled.push(id);
            if alive.contains(&id) {
                links.push(id);
            } else {
                plan.failed(&id, now_ms, 1.0);
            }
        }
        links.retain(|id| alive.contains(id));
        plan.linked(&up(&links), now_ms, 1.0);
        now_ms += 100;
    }
    dialled
}

#[test]
fn strangers_are_dialled_as_many_as_are_wanted_and_the_best_first() {
    let mut plan = Uplinks::new(ME, 3, &[], &[]);
    assert_eq!(plan.take_due(0), []);
    plan.found(&nodes(0..50));
    assert_eq!(set(&plan.take_due(0)), set(&best(0..50)[..3]));
    assert_eq!(plan.take_due(0), [], "these are under way");
    plan.linked(&up(&best(0..50)[..3]), 10, 0.5);
    assert_eq!(plan.chosen(), best(0..50)[..3]);
    assert_eq!(plan.take_due(1_000_000), [], "none would be better");
}

#[test]
fn a_better_one_that_comes_later_takes_the_place_of_the_worst() {
    let ranked = best(0..10);
    let mut plan = Uplinks::new(ME, 2, &[], &[]);
    plan.found(&ranked[4..]);
    settle(&mut plan, &ranked, 0, 1_000);
    assert_eq!(plan.chosen(), ranked[4..6]);
    plan.found(&ranked);
    settle(&mut plan, &ranked, 1_000, 2_000);
    assert_eq!(plan.chosen(), ranked[..2]);
    assert_eq!(plan.surplus(), ranked[4..6]);
}

#[test]
fn what_is_surplus_is_told_only_when_better_ones_are_up() {
    let ranked = best(0..6);
    let mut plan = Uplinks::new(ME, 2, &[], &ranked);
    plan.linked(&up(&ranked[4..]), 0, 0.5);
    assert_eq!(plan.surplus(), []);
    plan.linked(&up(&ranked[1..]), 0, 0.5);
    assert_eq!(plan.chosen(), ranked[1..3]);
    assert_eq!(plan.surplus(), ranked[3..]);
}

#[test]
fn one_that_fails_is_dialled_for_ever_and_the_next_takes_its_place_until_it_is_back() {
    let ranked = best(0..4);
    let mut plan = Uplinks::new(ME, 2, &ranked, &[]);
    let dialled = settle(&mut plan, &ranked[1..], 0, 600_000);
    assert_eq!(plan.chosen(), ranked[1..3]);
    let tries = dialled.iter().filter(|id| **id == ranked[0]).count();
    assert!((10..40).contains(&tries), "{tries} in ten minutes");
    assert!(!dialled.contains(&ranked[3]), "nobody needs it");
    settle(&mut plan, &ranked, 600_000, 700_000);
    assert_eq!(plan.chosen(), ranked[..2]);
}

#[test]
fn a_quiet_link_is_replaced_and_dialled_anew_and_used_again_when_it_is_heard() {
    let ranked = best(0..3);
    let mut plan = Uplinks::new(ME, 1, &ranked, &[]);
    plan.linked(&up(&ranked[..1]), 0, 1.0);
    assert_eq!(plan.take_due(10), []);
    plan.linked(&[(ranked[0], true)], 10, 1.0);
    assert_eq!(plan.chosen(), []);
    assert_eq!(plan.take_due(10), [ranked[1]], "at once");
    assert_eq!(plan.take_due(10 + FIRST_REDIAL_MS), [ranked[0]], "soon");
    plan.failed(&ranked[0], 300, 1.0);
    plan.linked(&[(ranked[0], true), (ranked[1], false)], 300, 1.0);
    assert_eq!(plan.chosen(), [ranked[1]]);
    plan.linked(&up(&ranked[..2]), 400, 1.0);
    assert_eq!(
        (plan.chosen(), plan.surplus()),
        (vec![ranked[0]], vec![ranked[1]])
    );
}

#[test]
fn a_node_whose_orchestrators_all_die_dials_the_others_it_knows_at_once_and_these_within_seconds() {
    let ranked = best(0..5);
    let mut plan = Uplinks::new(ME, 3, &[], &ranked);
    plan.linked(&up(&ranked[..3]), 0, 1.0);
    plan.linked(&[], 1_000, 1.0);
    assert_eq!(plan.take_due(1_000), ranked[3..]);
    for id in &ranked[3..] {
        plan.failed(id, 1_000, 1.0);
    }
    settle(&mut plan, &[], 1_000, 3_600_000);
    // After an hour alone they come back.
    settle(
        &mut plan,
        &ranked[..1],
        3_600_000,
        3_600_000 + MAX_REDIAL_MS,
    );
    assert_eq!(plan.chosen(), ranked[..1]);
}

#[test]
fn no_crowd_of_strangers_hides_the_orchestrators_that_are_configured_or_remembered() {
    let crowd = nodes(1_000..3_000);
    let (configured, remembered) = (node(1), node(2));
    let mut plan = Uplinks::new(ME, 3, &[configured], &[remembered]);
    let mut now_ms = 0;
    for round in 0..50 {
        plan.found(&crowd[(round * 40) % 1_900..][..100]);
        settle(&mut plan, &[configured, remembered], now_ms, now_ms + 2_000);
        now_ms += 2_000;
        assert_eq!(set(&plan.chosen()), set(&[configured, remembered]));
        assert!(plan.known.len() <= MAX_STRANGERS + 2);
    }
}

#[test]
fn no_crowd_of_strangers_bars_the_way_to_an_orchestrator_that_is_only_found() {
    // They outrank the real one, and were there before it.
    let ranked = best(0..200);
    let (real, crowd) = (*ranked.last().expect("some"), &ranked[..199]);
    let mut plan = Uplinks::new(ME, 3, &[], &[]);
    plan.found(crowd);
    settle(&mut plan, &[], 0, 5_000);
    plan.found(&ranked);
    settle(&mut plan, &[real], 5_000, 60_000);
    assert_eq!(plan.chosen(), [real]);
}

#[test]
fn strangers_are_probed_by_few_at_a_time() {
    let mut plan = Uplinks::new(ME, 3, &[node(1)], &[]);
    plan.found(&nodes(10..200));
    let mut most = 0;
    for now_ms in (0..20_000).step_by(50) {
        let due = plan.take_due(now_ms);
        most = most.max(due.len());
        assert!(due.len() <= MAX_PROBES + 1, "{}", due.len());
        for id in due {
            plan.failed(&id, now_ms, 1.0);
        }
    }
    assert!(most > 3, "more at once the more fail");
    plan.linked(&up(&[node(1)]), 20_000, 1.0);
    assert!(plan.take_due(u64::MAX).len() <= PROBES);
}

#[test]
fn strangers_that_nobody_announces_any_more_are_forgotten_and_the_proven_are_not() {
    let mut plan = Uplinks::new(ME, 1, &[], &[]);
    plan.found(&nodes(0..3));
    plan.linked(&up(&[node(0)]), 0, 0.5);
    plan.linked(&[], 10, 0.5);
    for _ in 0..=MAX_MISSED {
        plan.found(&[]);
    }
    assert_eq!(plan.known.keys().copied().collect::<Vec<_>>(), [node(0)]);
    assert_eq!(plan.proven().collect::<Vec<_>>(), [node(0)]);
}

#[test]
fn the_proven_are_bounded_and_the_one_linked_longest_ago_makes_room() {
    let mut plan = Uplinks::new(ME, 1, &[], &[]);
    for n in 0..200 {
        plan.linked(&up(&[node(n)]), u64::from(n) + 1, 0.5);
    }
    let proven: BTreeSet<NodeId> = plan.proven().collect();
    assert_eq!(proven, nodes(200 - 64..200).into_iter().collect());
}

#[test]
fn a_node_never_dials_itself() {
    let mut plan = Uplinks::new(ME, 3, &[ME], &[ME]);
    plan.found(&[ME]);
    assert_eq!(plan.take_due(u64::MAX), []);
}

#[test]
fn the_next_dial_is_known_so_that_nobody_has_to_ask_all_the_time() {
    let mut plan = Uplinks::new(ME, 1, &[node(1)], &[]);
    assert_eq!(plan.next_dial_ms(), Some(0));
    plan.take_due(0);
    assert_eq!(plan.next_dial_ms(), None);
    plan.failed(&node(1), 1_000, 1.0);
    assert_eq!(plan.next_dial_ms(), Some(1_000 + FIRST_REDIAL_MS));
}

#[test]
fn people_are_shown_where_each_is_known_from_how_it_stands_and_when_it_is_dialled() {
    let mut plan = Uplinks::new(ME, 1, &[node(1)], &[node(2)]);
    plan.found(&[node(3)]);
    plan.linked(&[(node(1), false), (node(2), true)], 500, 0.5);
    plan.take_due(0);
    plan.failed(&node(3), 600, 0.5);
    let views = plan.views();
    let view = |n| *views.iter().find(|it| it.id == node(n)).expect("known");
    assert_eq!(
        (view(1).source, view(1).state),
        (Source::Configured, "in-use")
    );
    assert_eq!(
        (view(2).source, view(2).state),
        (Source::Remembered, "quiet")
    );
    assert_eq!(
        (view(3).source, view(3).state),
        (Source::Found, "not-linked")
    );
    assert_eq!(
        (view(1).linked_ms, view(3).linked_ms, view(3).failures),
        (500, 0, 1)
    );
    assert_eq!(view(1).dial_at_ms, None);
    let ids: Vec<NodeId> = views.iter().map(|it| it.id).collect();
    assert_eq!(set(&ids), set(&nodes(1..4)));
}
