//! What the fleet's rows show.

use super::*;
use crate::catalogue::{Catalogue, Release};
use crate::fleet::Roster;
use crate::testing::{breaking, id, offer, region, there};
use tether_presence::Effect;
use tether_wire::Digest;

fn page(fleet: &Snapshot, catalogue: &Catalogue, query: &[(&str, &str)], now: u64) -> Page {
    let query: Vec<(String, String)> = (query.iter())
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let sight = Sight {
        fleet,
        catalogue,
        breaking: &breaking(),
        is_linked: &|_| false,
        now_mono_ms: now,
    };
    sight.page(&Filter::parse(&query).expect("allowed"), &[])
}

fn rows(fleet: &Snapshot, catalogue: &Catalogue, now: u64) -> Vec<FleetRow> {
    page(fleet, catalogue, &[], now).workers
}

#[test]
fn a_row_has_exactly_the_fields_that_are_promised() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |it| {
        it.beat.queue_depth = 2;
        it.heard_mono_ms = 1_000;
    });
    roster.apply(Effect::Suspect(id(1)));
    let fleet = roster.snapshot();
    let _busy = fleet.worker(&id(1)).expect("there").occupy();
    let json = serde_json::to_value(rows(&fleet, &Catalogue::default(), 1_250)).expect("JSON");
    let reason = json[0]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("suspect"));
    assert_eq!(
        json,
        serde_json::json!([{
            "id": id(1).to_hex(), "state": "suspect", "region": "local",
            "models": ["tiny@1.0"], "in_flight": 1, "queue_depth": 2,
            "heartbeat_age_ms": 250, "slots": 4, "tier": "trusted", "engine": "echo",
            "reason": reason, "reasons": [reason], "breaker": "closed", "linked": false, "faults": []
        }])
    );
}

#[test]
fn a_worker_that_offers_no_model_is_not_said_to_serve() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |it| it.worker.models.clear());
    let fleet = roster.snapshot();
    let row = rows(&fleet, &Catalogue::default(), 0).remove(0);
    assert_eq!(row.state, "unavailable");
    assert_eq!(row.reason.as_deref(), Some("it offers no model"));
    let counts = roster.counts();
    assert!(counts.contains(&("unavailable", 1)) && counts.contains(&("serving", 0)));
    roster.apply(Effect::Suspect(id(1)));
    assert!(roster.counts().contains(&("suspect", 1)));
}

#[test]
fn a_worker_with_another_artifact_than_its_name_is_bound_to_is_told_so() {
    let mut roster = Roster::default();
    for (n, digest) in [(1, 7), (2, 8)] {
        there(&mut roster, n, |it| {
            it.worker.models = vec![offer("tiny@1.0", digest)];
        });
    }
    let fleet = roster.snapshot();
    let release = Release {
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([7; 32]),
        created_ms: 1,
    };
    let rows = rows(&fleet, &Catalogue::new(&[release], &[]), 0);
    let row = |n| rows.iter().find(|row| row.id == id(n)).expect("there");
    assert_eq!((&row(1).reason, row(1).faults.len()), (&None, 0));
    assert_eq!((row(1).state, row(2).state), ("serving", "unavailable"));
    let reason = row(2).reason.as_deref().expect("a reason");
    assert!(reason.starts_with("tiny@1.0: ") && reason.contains("released"));
    assert_eq!(row(2).faults[0].model, "tiny@1.0");
}

#[test]
fn who_gets_no_work_comes_first_then_regions_then_ids_and_the_limit_hides_the_well() {
    let mut roster = Roster::default();
    for n in 0..40 {
        there(&mut roster, n, |it| {
            it.region = region(if n % 2 == 0 { "us" } else { "eu" });
        });
    }
    for n in [3, 30] {
        roster.apply(Effect::Suspect(id(n)));
    }
    let fleet = roster.snapshot();
    let catalogue = Catalogue::default();
    let all = page(&fleet, &catalogue, &[], 0);
    let place = |row: &FleetRow| (row.reason.is_none(), row.region.clone(), row.id);
    assert!(all.workers.is_sorted_by_key(place));
    assert_eq!((all.total, all.matched, all.routable), (40, 40, 38));
    assert_eq!((all.states["suspect"], all.states["serving"]), (2, 38));
    assert_eq!(all.left_out, 0);

    let some = page(&fleet, &catalogue, &[("limit", "5")], 0);
    assert_eq!(some.workers, all.workers[..5]);
    assert_eq!((some.matched, some.left_out), (40, 35));
    assert_eq!((some.workers[0].id, some.workers[1].id), (id(3), id(30)));

    let asked = [("region", "eu"), ("state", "unroutable")];
    let asked = page(&fleet, &catalogue, &asked, 0);
    assert_eq!((asked.total, asked.matched), (40, 1));
    assert_eq!(asked.workers[0].id, id(3));
}

#[test]
fn a_node_without_a_card_is_shown_unless_its_region_or_model_is_asked_for() {
    let fleet = Snapshot::default();
    let sight = Sight {
        fleet: &fleet,
        catalogue: &Catalogue::default(),
        breaking: &breaking(),
        is_linked: &|_| true,
        now_mono_ms: 0,
    };
    let outside = [Outside {
        id: id(1),
        age_ms: 9,
        reason: UNCARDED.to_owned(),
    }];
    let shown = |key: &str, value: &str| {
        let query = [(key.to_owned(), value.to_owned())];
        let filter = Filter::parse(&query).expect("allowed");
        sight.page(&filter, &outside).workers
    };
    let row = shown("state", "unroutable").remove(0);
    assert_eq!((row.state, row.region, row.linked), ("unknown", None, true));
    assert!(row.reason.expect("a reason").contains("card has not come"));
    assert_eq!(shown("state", "unknown").len(), 1);
    assert_eq!(shown("state", "serving").len(), 0);
    assert_eq!(shown("region", "eu").len(), 0);
    assert_eq!(shown("model", "tiny").len(), 0);
}

#[test]
fn one_that_could_not_be_reached_says_for_how_long_it_is_left_alone() {
    let mut roster = Roster::default();
    there(&mut roster, 1, |_| ());
    roster.apply(Effect::Suspect(id(1)));
    assert!(roster.unreachable(&id(1), 0, 3_000));
    let fleet = roster.snapshot();
    let row = rows(&fleet, &Catalogue::default(), 500).remove(0);
    assert_eq!(row.reasons.len(), 2, "{:?}", row.reasons);
    assert!(row.reasons[1].contains("2500 ms"), "{:?}", row.reasons);
    let later = rows(&fleet, &Catalogue::default(), 3_000).remove(0);
    assert_eq!(later.reasons.len(), 1, "it may be dialled again");
}
