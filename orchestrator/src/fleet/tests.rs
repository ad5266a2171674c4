use super::*;
use crate::presence::Gone;
use crate::testing::{beat, key, offer};

fn there(roster: &mut Roster, n: u8, change: impl FnOnce(&mut Heartbeat)) {
    let mut beat = beat(n, 1, 1, 0);
    change(&mut beat);
    roster.apply(Change::Beat {
        beat: Box::new(beat),
        tier: Tier::Trusted,
        heard_mono_ms: 0,
    });
}

fn model(text: &str) -> ModelRef {
    text.parse().expect("valid")
}

#[test]
fn candidates_are_those_who_serve_exactly_that_version() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    there(&mut roster, 2, |b| {
        b.models = vec![offer("tiny@1.1", 8), offer("tiny@1.0", 7)];
    });
    let fleet = roster.snapshot();
    assert_eq!(fleet.len(), 2);
    assert_eq!(fleet.candidates(&model("tiny@1.0")).len(), 2);
    let newer = fleet.candidates(&model("tiny@1.1"));
    assert_eq!(newer.len(), 1);
    assert_eq!(newer[0].worker.id(), key(2).id());
    assert_eq!(newer[0].offer().model, model("tiny@1.1"));
    assert!(fleet.candidates(&model("other@1.0")).is_empty());
    let found = |text| fleet.find(text).map(|offer| offer.model.clone());
    assert_eq!(found("tiny"), Some(model("tiny@1.1")));
    assert_eq!(found("tiny@1.0"), Some(model("tiny@1.0")));
    for unknown in ["other", "tiny@2.0", "tiny@", "", "@"] {
        assert_eq!(found(unknown), None, "{unknown}");
    }
}

#[test]
fn who_starts_drains_or_is_unknown_is_seen_but_not_chosen() {
    for state in [
        WorkerState::Starting,
        WorkerState::Draining,
        WorkerState::Unknown,
    ] {
        let mut roster = Roster::default();
        there(&mut roster, 1, |b| b.state = state);
        let fleet = roster.snapshot();
        assert!(fleet.candidates(&model("tiny@1.0")).is_empty());
        let reason = fleet.worker(&key(1).id()).expect("seen").unroutable();
        assert!(reason.expect("a reason").contains(state.as_str()));
    }
}

#[test]
fn a_worker_without_models_says_why() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |b| {
        b.models.clear();
        b.faults = vec![tether_wire::heartbeat::ModelFault {
            model: "/models/x".into(),
            reason: "corrupt".into(),
        }];
    });
    let fleet = roster.snapshot();
    let reason = fleet.worker(&key(1).id()).expect("seen").unroutable();
    assert!(reason.expect("a reason").contains("corrupt"));
}

#[test]
fn the_count_of_what_runs_is_exact_and_survives_every_change_of_the_view() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    let before = roster.snapshot();
    let view = before.worker(&key(1).id()).expect("there").clone();
    let one = view.occupy();
    let two = view.occupy();
    assert_eq!(view.in_flight(), 2);
    roster.apply(Change::Suspect(key(1).id()));
    there(&mut roster, 1, |b| b.seq = 2);
    let after = roster.snapshot();
    let again = after.worker(&key(1).id()).expect("there").clone();
    assert_eq!(again.in_flight(), 2, "seen through a later snapshot");
    drop(one);
    assert_eq!(again.in_flight(), 1);
    // Gone while one still runs, and back again: the one is not forgotten.
    roster.apply(Change::Gone(key(1).id(), Gone::Expired));
    drop((before, after, view, again));
    there(&mut roster, 1, |b| b.seq = 3);
    let back = roster.snapshot();
    let back = back.worker(&key(1).id()).expect("back");
    assert_eq!(back.in_flight(), 1);
    drop(two);
    assert_eq!(back.in_flight(), 0);
}

#[test]
fn counts_of_workers_that_are_gone_are_freed() {
    let mut roster = Roster::default();
    for n in 0..50 {
        there(&mut roster, n, |_| ());
        roster.apply(Change::Gone(key(n).id(), Gone::Departed));
    }
    assert!(roster.counts.is_empty() && roster.workers.is_empty());
}

#[test]
fn load_is_what_it_said_or_what_we_gave_whichever_is_more() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |b| {
        b.in_flight = 1;
        b.queue_depth = 3;
    });
    let fleet = roster.snapshot();
    let view = fleet.worker(&key(1).id()).expect("there");
    assert_eq!(view.load(), 4);
    let busy: Vec<_> = (0..5).map(|_| view.occupy()).collect();
    assert_eq!(view.load(), 5);
    drop(busy);
    assert_eq!(view.load(), 4);
}

#[test]
fn a_suspect_is_counted_as_such() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    there(&mut roster, 2, |_| ());
    roster.apply(Change::Suspect(key(2).id()));
    let counts = roster.snapshot().counts();
    assert!(counts.contains(&("serving", 1)) && counts.contains(&("suspect", 1)));
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
        let mut beat = beat(n, 1, 1, 0);
        beat.models = vec![offer(model, digest)];
        roster.apply(Change::Beat {
            beat: Box::new(beat),
            tier,
            heard_mono_ms: 0,
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
    let id = key(1).id();
    there(&mut roster, 1, |_| ());
    let asked = |roster: &Roster, linked: bool, now_ms| {
        let fleet = roster.snapshot();
        let view = fleet.worker(&id).expect("there");
        view.may_be_asked(|| linked, now_ms)
    };
    assert!(
        asked(&roster, false, 0),
        "dialled where nothing speaks against it"
    );
    let lost = Change::Unreachable {
        worker: id,
        redial_mono_ms: 3_000,
    };
    roster.apply(lost.clone());
    assert!(!asked(&roster, false, 2_999) && asked(&roster, true, 0));
    assert!(asked(&roster, false, 3_000));
    let fleet = roster.snapshot();
    let view = fleet.worker(&id).expect("there");
    let reason = view.unroutable().expect("a reason");
    assert!(view.suspect && reason.starts_with("suspect: its link"));
    there(&mut roster, 1, |b| b.seq = 2);
    assert!(asked(&roster, false, 0), "it was heard");
    roster.apply(Change::Gone(id, Gone::Expired));
    roster.apply(lost);
    assert!(roster.snapshot().is_empty(), "nobody comes back by it");
}
