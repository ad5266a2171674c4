use super::*;
use crate::testing::{id, offer, region, says, there};
use crate::warmth::Warm;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tether_presence::{Effect, Gone};
use tether_wire::beat::NodeState;
use tether_wire::{Digest, ModelRef, NodeId, Tier};

fn model(text: &str) -> ModelRef {
    text.parse().expect("valid")
}

fn candidates(fleet: &Snapshot, text: &str, digest: u8) -> Vec<NodeId> {
    let mut rng = StdRng::seed_from_u64(1);
    let (digest, here) = (Digest([digest; 32]), region("local"));
    let found = fleet.candidates((&model(text), &digest), &here, &Warm::default(), &mut rng);
    let asked = found
        .iter()
        .filter(|it| it.worker.may_be_asked(|| false, 0));
    let mut ids: Vec<_> = asked.map(|it| it.worker.id()).collect();
    ids.sort_unstable();
    ids
}

fn gone(n: u16, how: Gone) -> Effect {
    Effect::Gone { node: id(n), how }
}

#[test]
fn candidates_are_those_who_serve_exactly_that_version_and_artifact() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    there(&mut roster, 2, |it| {
        it.worker.models = vec![offer("tiny@1.1", 8), offer("tiny@1.0", 7)];
    });
    let fleet = roster.snapshot();
    assert_eq!(fleet.len(), 2);
    assert_eq!(candidates(&fleet, "tiny@1.0", 7).len(), 2);
    assert_eq!(candidates(&fleet, "tiny@1.1", 8), [id(2)]);
    assert!(candidates(&fleet, "tiny@1.1", 7).is_empty());
    assert!(candidates(&fleet, "other@1.0", 7).is_empty());
    assert!(fleet.serves(&model("tiny@1.1"), &Digest([8; 32])));
    assert!(!fleet.serves(&model("tiny@1.1"), &Digest([7; 32])));
    let found = |text| fleet.find(text).map(|offer| offer.model.clone());
    assert_eq!(found("tiny"), Some(model("tiny@1.1")));
    assert_eq!(found("tiny@1.0"), Some(model("tiny@1.0")));
    for unknown in ["other", "tiny@2.0", "tiny@", "", "@"] {
        assert_eq!(found(unknown), None, "{unknown}");
    }
}

#[test]
fn who_starts_drains_or_is_unknown_is_seen_but_not_chosen() {
    for state in [NodeState::Starting, NodeState::Draining, NodeState::Unknown] {
        let mut roster = Roster::default();
        there(&mut roster, 1, |it| it.beat.state = state);
        let fleet = roster.snapshot();
        assert!(candidates(&fleet, "tiny@1.0", 7).is_empty());
        assert_eq!(fleet.offers().len(), 1, "it is offered all the same");
        let reason = fleet.worker(&id(1)).expect("seen").unroutable();
        assert!(reason.expect("a reason").contains(state.as_str()));
    }
}

#[test]
fn what_takes_no_more_work_is_not_chosen_from_an_older_snapshot_either() {
    let mut roster = Roster::default();
    for n in [1, 2, 3] {
        there(&mut roster, n, |_| ());
    }
    let before = roster.snapshot();
    there(&mut roster, 1, |it| it.beat.state = NodeState::Draining);
    roster.apply(gone(2, Gone::Departed));
    assert_eq!(candidates(&before, "tiny@1.0", 7), [id(3)]);
    there(&mut roster, 1, |_| ());
    assert_eq!(candidates(&roster.snapshot(), "tiny@1.0", 7).len(), 2);
}

#[test]
fn a_worker_without_models_says_why() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |it| {
        it.worker.models.clear();
        it.worker.faults = vec![tether_wire::card::ModelFault {
            model: "/models/x".into(),
            reason: "corrupt".into(),
        }];
    });
    let fleet = roster.snapshot();
    let reason = fleet.worker(&id(1)).expect("seen").unroutable();
    assert!(reason.expect("a reason").contains("corrupt"));
}

#[test]
fn the_count_of_what_runs_is_exact_and_survives_every_change_of_the_view() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    let before = roster.snapshot();
    let view = before.worker(&id(1)).expect("there").clone();
    let one = view.occupy();
    let two = view.occupy();
    assert_eq!(view.in_flight(), 2);
    roster.apply(Effect::Suspect(id(1)));
    there(&mut roster, 1, |it| it.worker.capacity = 9);
    let after = roster.snapshot();
    let again = after.worker(&id(1)).expect("there").clone();
    assert_eq!(again.in_flight(), 2, "seen through a later snapshot");
    drop(one);
    assert_eq!(again.in_flight(), 1);
    // Gone while one still runs, and back again: the one is not forgotten.
    roster.apply(gone(1, Gone::Expired));
    drop((before, after, view, again));
    there(&mut roster, 1, |_| ());
    let back = roster.snapshot();
    let back = back.worker(&id(1)).expect("back");
    assert_eq!(back.in_flight(), 1);
    drop(two);
    assert_eq!(back.in_flight(), 0);
}

#[test]
fn nothing_is_kept_of_workers_that_are_gone() {
    let mut roster = Roster::default();
    for n in 0..50 {
        there(&mut roster, n, |_| ());
        roster.apply(gone(n, Gone::Departed));
    }
    assert!(roster.is_spent());
    assert_eq!(roster.index().groups(), (0, 0));
    assert!(roster.counts().iter().all(|(_, count)| *count == 0));
}

#[test]
fn load_is_what_others_had_when_it_was_heard_and_what_we_have_now() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |it| {
        it.beat.in_flight = 1;
        it.beat.queue_depth = 3;
    });
    let fleet = roster.snapshot();
    let view = fleet.worker(&id(1)).expect("there");
    assert_eq!(view.load(), 4);
    let busy: Vec<_> = (0..5).map(|_| view.occupy()).collect();
    assert_eq!(view.load(), 9, "given since, so that it did not tell of it");
    let [_, beat] = says(1, |it| {
        it.beat.seq = 2;
        it.beat.in_flight = 6;
    });
    roster.apply(beat);
    assert_eq!(view.load(), 6, "five of them are ours");
    drop(busy);
    assert_eq!(view.load(), 1, "and have ended");
}

#[test]
fn a_beat_that_says_nothing_but_load_is_seen_through_the_snapshot_that_is_there() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    roster.told(true);
    let fleet = roster.snapshot();
    let [_, beat] = says(1, |it| {
        it.beat.seq = 2;
        it.beat.queue_depth = 5;
        it.heard_mono_ms = 77;
    });
    roster.apply(beat);
    assert!(!roster.news().is_stale() && !roster.news().noted);
    let view = fleet.worker(&id(1)).expect("there");
    assert_eq!((view.queue_depth(), view.heard_mono_ms()), (5, 77));
    roster.apply(Effect::Suspect(id(1)));
    assert!(view.is_suspect() && roster.news().noted && !roster.news().is_stale());
    roster.apply(Effect::Well(id(1)));
    assert!(!view.is_suspect());
}

#[test]
fn a_suspect_is_counted_as_such() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    there(&mut roster, 2, |_| ());
    roster.apply(Effect::Suspect(id(2)));
    let counts = roster.counts();
    assert!(counts.contains(&("serving", 1)) && counts.contains(&("suspect", 1)));
    there(&mut roster, 2, |_| ());
    assert!(roster.counts().contains(&("serving", 2)));
}

#[test]
fn a_worker_whose_card_is_not_held_is_no_worker_until_it_is() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    let busy = roster.snapshot().worker(&id(1)).expect("there").occupy();
    let [card, beat] = says(1, |it| it.beat.seq = 2);
    let Effect::Beat { beat, .. } = beat else {
        panic!("a beat");
    };
    roster.apply(Effect::Beat {
        beat,
        heard_mono_ms: 0,
        carded: false,
    });
    assert!(roster.snapshot().is_empty());
    roster.apply(card);
    let fleet = roster.snapshot();
    let view = fleet.worker(&id(1)).expect("its card came");
    assert_eq!((view.in_flight(), view.state), (1, NodeState::Serving));
    drop(busy);
}

#[test]
fn trusted_workers_speak_for_a_name_before_others_do() {
    let mut roster = Roster::default();
    for (n, tier, model, digest) in [
        (1, Tier::Untrusted, "tiny@1.0", 6),
        (2, Tier::Trusted, "tiny@1.0", 7),
        (3, Tier::Trusted, "tiny@1.0", 7),
        (4, Tier::Untrusted, "tiny@9.0", 6),
    ] {
        there(&mut roster, n, |it| {
            it.worker.models = vec![offer(model, digest)];
            it.tier = tier;
        });
    }
    let fleet = roster.snapshot();
    let found = fleet.find("tiny").expect("served");
    assert_eq!((&found.model, found.digest.0[0]), (&model("tiny@1.0"), 7));
    let offers: Vec<_> = (fleet.offers().iter())
        .map(|it| (it.model.to_string(), it.digest.0[0], it.trusted))
        .collect();
    let expected = [
        ("tiny@1.0".to_owned(), 6, false),
        ("tiny@1.0".to_owned(), 7, true),
        ("tiny@9.0".to_owned(), 6, false),
    ];
    assert_eq!(offers, expected);
}

#[test]
fn a_worker_that_cannot_be_linked_is_asked_over_a_link_after_a_heartbeat_or_a_while_later() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    let fleet = roster.snapshot();
    let view = fleet.worker(&id(1)).expect("there");
    let asked = |linked: bool, now_ms| view.may_be_asked(|| linked, now_ms);
    assert!(asked(false, 0), "dialled where nothing speaks against it");
    roster.apply(Effect::Suspect(id(1)));
    assert!(roster.unreachable(&id(1), 0, 3_000));
    assert!(!asked(false, 2_999) && asked(true, 0));
    assert!(!roster.unreachable(&id(1), 2_999, 6_000), "found out once");
    assert!(asked(false, 3_000));
    let reason = view.unroutable().expect("a reason");
    assert!(view.is_suspect() && reason.starts_with("suspect: its link"));
    there(&mut roster, 1, |_| ());
    assert!(asked(false, 0), "it was heard");
    roster.apply(gone(1, Gone::Expired));
    assert!(!roster.unreachable(&id(1), 9_000, 12_000));
    assert!(roster.snapshot().is_empty(), "nobody comes back by it");
}
