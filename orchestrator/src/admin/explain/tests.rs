//! What is said of one node.

use super::*;
use crate::catalogue::Catalogue;
use crate::fleet::Roster;
use crate::testing::{NOW, breaking, id, mesh, offer, region, there, verified};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tether_presence::{AdmittedCard, Effect, Event, Input, Now, Origin, Settings, Spread};
use tether_wire::beat::NodeState;

fn at(ms: u64) -> Now {
    Now {
        unix_ms: NOW + ms,
        mono_ms: ms,
    }
}

/// Presence and fleet as an orchestrator has them.
struct Scene {
    spread: Spread,
    roster: Roster,
    seq: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            spread: Spread::new(id(500), Settings::default(), at(0), 1),
            roster: Roster::default(),
            seq: 0,
        }
    }

    fn take(&mut self, event: Event, now: Now) {
        let mut outputs = Vec::new();
        self.spread.handle(Input::Own(event), now, &mut outputs);
        for output in outputs {
            if let tether_presence::Output::Effect(effect) = output {
                self.roster.apply(effect);
            }
        }
    }

    fn says(&mut self, n: u16, now: Now, change: impl FnOnce(&mut Card, &mut Beat)) {
        self.seq += 1;
        let (mut card, mut beat) = (crate::testing::card(), crate::testing::beat(self.seq));
        beat.issued_ms = now.unix_ms;
        change(&mut card, &mut beat);
        let card = AdmittedCard::new(verified(n, &card), Tier::Trusted, Some(NOW + 60_000));
        beat.card = card.digest();
        let event = Event::Beat {
            beat: verified(n, &beat),
            card: Some(Box::new(card)),
            origin: Origin::Direct,
        };
        self.take(event, now);
    }

    fn explain(&self, n: u16, now: Now) -> Explained {
        let fleet = self.roster.snapshot();
        let prefix = Prefix::parse(&id(n).to_hex()).expect("an id");
        let Answer::One(known) = find(&prefix, &self.spread, now) else {
            panic!("it is known");
        };
        let explaining = Explaining {
            sight: Sight {
                fleet: &fleet,
                catalogue: &Catalogue::default(),
                breaking: &breaking(),
                is_linked: &|_| true,
                now_mono_ms: now.mono_ms,
            },
            mesh: mesh(),
            region: &region("local"),
            placement: &Placement::default(),
            link: "direct",
            refused: None,
        };
        explaining.explain(*known, &mut StdRng::seed_from_u64(1))
    }
}

#[test]
fn a_worker_that_serves_is_told_with_its_rank_against_the_best() {
    let mut scene = Scene::new();
    scene.says(1, at(0), |card, beat| {
        card.agent = "tether/0.1.0".to_owned();
        beat.queue_depth = 8;
        beat.in_flight = 4;
        beat.tokens_per_s = 20.5;
    });
    scene.says(2, at(0), |_, _| ());
    scene.says(3, at(0), |card, _| card.region = region("away"));
    let worse = scene.explain(1, at(250));
    assert_eq!(
        (worse.standing, worse.state, worse.age_ms),
        ("live", "serving", 250)
    );
    assert_eq!(worse.role, Some(Role::Worker));
    assert_eq!(worse.granted_until_ms, Some(NOW + 60_000));
    assert_eq!((worse.beat.epoch, worse.beat.seq), (1, 1));
    let load = worse.load.expect("a load");
    assert_eq!((load.in_flight, load.queue_depth, load.counted), (4, 8, 12));
    assert_eq!(worse.card.expect("a card").agent, "tether/0.1.0");
    let model = &worse.models[0];
    assert_eq!(
        (model.rank, model.of),
        (Some(3), 3),
        "its load counts for more than the other's region"
    );
    let best = model.best.as_ref().expect("somebody");
    assert_eq!(best.worker, id(2));
    assert!(best.score > model.score.expect("a score"));
    assert!(model.terms.expect("terms").queue < best.terms.queue);
    assert_eq!(model.why_not, None);
    assert_eq!(scene.explain(2, at(250)).models[0].rank, Some(1));
}

#[test]
fn why_a_worker_is_no_candidate_is_told_for_each_model() {
    let mut scene = Scene::new();
    scene.says(1, at(0), |card, beat| {
        beat.state = NodeState::Draining;
        let worker = card.worker.as_mut().expect("a worker");
        worker.models.push(offer("other@2.0", 9));
    });
    let explained = scene.explain(1, at(0));
    assert_eq!(explained.models.len(), 2);
    for model in &explained.models {
        assert_eq!((model.rank, model.of, &model.best), (None, 0, &None));
        assert_eq!(model.why_not.as_deref(), Some("it is draining"));
    }
}

#[test]
fn a_doubt_is_told_with_its_reason_and_for_how_long() {
    let mut scene = Scene::new();
    for n in [1, 2] {
        scene.says(n, at(0), |_, _| ());
    }
    scene.take(Event::LinkLost(id(1)), at(1_000));
    let explained = scene.explain(1, at(3_000));
    let suspect = explained.suspect.expect("suspect");
    assert_eq!(suspect.for_ms, 2_000);
    assert!(suspect.why.contains("link broke"), "{}", suspect.why);
    let model = &explained.models[0];
    assert_eq!(
        (model.rank, model.why_not.clone()),
        (Some(2), None),
        "chosen last"
    );
    scene.says(1, at(4_000), |_, _| ());
    assert_eq!(scene.explain(1, at(4_000)).suspect, None);
}

#[test]
fn who_is_gone_is_told_with_how_and_since_when() {
    let mut scene = Scene::new();
    scene.says(1, at(0), |_, _| ());
    scene.says(2, at(0), |_, _| ());
    scene.says(1, at(1_000), |_, beat| beat.state = NodeState::Leaving);
    for ms in (1_000..20_000).step_by(500) {
        scene.take(Event::Tick, at(ms));
    }
    let departed = scene.explain(1, at(20_000));
    assert_eq!((departed.standing, departed.age_ms), ("departed", 19_000));
    assert!(departed.row.is_none() && departed.card.is_none() && departed.models.is_empty());
    let expired = scene.explain(2, at(20_000));
    assert_eq!(expired.standing, "expired");
    assert!(
        (4_000..6_000).contains(&expired.age_ms),
        "{}",
        expired.age_ms
    );
    scene.take(Event::Revoked(id(2)), at(20_000));
    let whole = Prefix::parse(&id(2).to_hex()).expect("an id");
    assert!(matches!(
        find(&whole, &scene.spread, at(20_000)),
        Answer::None { revoked: true }
    ));
}

#[test]
fn a_beginning_is_enough_where_no_other_node_has_it() {
    let mut scene = Scene::new();
    for n in 0..64 {
        scene.says(n, at(0), |_, _| ());
    }
    let one = id(7).to_hex();
    let by = |text: &str| find(&Prefix::parse(text).expect("hex"), &scene.spread, at(0));
    for text in [&one[..], &one[..12], &one[..9], &one[..12].to_uppercase()] {
        assert!(
            matches!(by(text), Answer::One(it) if it.id == id(7)),
            "{text}"
        );
    }
    // Of 64 nodes at least four begin with some digit.
    let many = "0123456789abcdef".chars().any(|digit| {
        matches!(by(&digit.to_string()), Answer::Many(ids) if (4..=MAX_NAMED).contains(&ids.len()))
    });
    assert!(many);
    assert!(matches!(
        by(&"0".repeat(64)),
        Answer::None { revoked: false }
    ));
    for text in ["", "xyz", "../metrics", &"0".repeat(65)] {
        assert!(
            Prefix::parse(text)
                .expect_err("refused")
                .contains("64 hex digits")
        );
    }
}

#[test]
fn who_is_like_what_was_typed_is_named() {
    let mut roster = Roster::default();
    for n in 0..64 {
        there(&mut roster, n, |_| ());
    }
    roster.apply(Effect::Suspect(id(1)));
    let fleet = roster.snapshot();
    let mut typed = id(7).to_hex();
    typed.replace_range(10..11, if &typed[10..11] == "0" { "1" } else { "0" });
    let near = Prefix::parse(&typed).expect("hex").near(&fleet);
    assert_eq!(near.first(), Some(&id(7)));
    assert!(near.len() <= MAX_NAMED);
}
