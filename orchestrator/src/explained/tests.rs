use super::*;
use crate::fleet::Roster;
use crate::place::{Query, place};
use crate::placement::Placement;
use crate::testing::{id, region, there};
use crate::warmth::{Home, Warm, Warmth};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tether_wire::infer::{Input, Output, Prefix};

const MODEL: Digest = Digest([7; 32]);

fn placed(busy: u32, suspect: bool) -> Placed {
    let mut roster = Roster::default();
    there(&mut roster, 1, |it| it.beat.in_flight = busy);
    there(&mut roster, 2, |_| ());
    if suspect {
        for n in [1, 2] {
            roster.apply(tether_presence::Effect::Suspect(id(n)));
        }
    }
    let tenant = TenantId::new("acme").expect("valid");
    let input = Input::Text("x".repeat(2_048));
    let prefix = Prefix::of(&tenant, &input, &Output::default());
    let mut warmth = Warmth::default();
    let home = Home {
        worker: id(1),
        epoch: 1,
    };
    warmth.sent(&MODEL, &prefix, home, 0);
    let warm: Warm = warmth.find(&MODEL, &prefix, 0);
    let (here, fleet) = (region("local"), roster.snapshot());
    let mut rng = StdRng::seed_from_u64(1);
    let model = "tiny@1.0".parse().expect("valid");
    let found = fleet.candidates((&model, &MODEL), &here, &warm, &mut rng);
    let query = Query {
        region: &here,
        gpu_class: None,
        numerics_class: None,
        orchestrators: 1,
        now_mono_ms: 0,
        left_at: None,
    };
    place(found, &query, &Placement::default(), &mut rng)
}

fn explanation(n: u8, outcome: &'static str) -> Explanation {
    Explanation {
        request: CorrelationId([n; 16]),
        tenant: TenantId::new("acme").expect("valid"),
        model: "tiny@1.0".to_owned(),
        artifact: None,
        degraded_from: None,
        rule: None,
        region: region("local"),
        came_ms: u64::from(n),
        took_ms: 1,
        outcome,
        prefix_blocks: 0,
        orders: Vec::new(),
        orders_left_out: 0,
        left_alone: Vec::new(),
    }
}

#[test]
fn the_reason_says_why_this_worker_and_why_not_the_one_that_was_warm() {
    let warm = reason(&placed(0, false));
    assert!(
        warm.contains("the best of 2; 8 blocks of the prompt's beginning were sent to it before"),
        "{warm}"
    );
    let busy = reason(&placed(6, false));
    assert!(
        busy.starts_with("the best of 2; for 1 that were sent"),
        "{busy}"
    );
    let doubted = reason(&placed(0, true));
    assert!(doubted.contains("it is in doubt"), "{doubted}");
    assert_eq!(reason(&Placed::default()), "nobody could be asked");
    let mut barred = placed(0, false);
    barred.pass_over(1);
    assert_eq!(
        reason(&barred),
        "the only one that could be asked; breakers leave 1 alone",
        "the warm one is passed over"
    );
    assert_eq!(barred.left_alone, [id(1)]);
}

#[test]
fn those_who_were_left_alone_are_named_once_and_no_more_than_there_is_room_for() {
    let mut orders = Orders::default();
    for n in 0..MAX_LEFT_ALONE as u16 + 3 {
        orders.left_alone(&[id(n), id(n)]);
    }
    let named = orders.left_alone;
    assert_eq!((named.len(), named[1]), (MAX_LEFT_ALONE, id(1)));
}

#[test]
fn each_order_is_recorded_with_all_candidates_and_no_more_orders_than_there_is_room_for() {
    let mut orders = Orders::default();
    for n in 0..MAX_ORDERS as u64 + 3 {
        let at = orders.gave(&placed(0, false), Duration::from_millis(n), n == 1);
        orders.ended(at, "unavailable");
    }
    let first = orders.first;
    assert_eq!((first.len(), orders.left_out), (MAX_ORDERS, 3));
    assert!(first.iter().all(|it| it.outcome == "unavailable"));
    assert_eq!(first[0].weights, Placement::default().weights);
    assert_eq!((first[1].after_ms, first[1].hedge), (1, true));
    assert!(!first[0].hedge && !first[2].hedge);
    let [chosen, other] = &first[0].candidates[..] else {
        panic!("two were looked at")
    };
    assert_eq!((chosen.worker, first[0].worker), (id(1), id(1)));
    assert!(chosen.score > other.score && chosen.terms.prefix > other.terms.prefix);
    assert_eq!((chosen.prefix_blocks, other.prefix_blocks), (8, 0));
}

#[test]
fn failures_are_kept_others_where_they_are_drawn_and_the_oldest_go() {
    let kept = Explanations::default();
    kept.keep(explanation(1, "unavailable"), false);
    kept.keep(explanation(2, "ok"), false);
    kept.keep(explanation(3, "cancelled"), false);
    kept.keep(explanation(4, "ok"), true);
    kept.keep(explanation(5, "cancelled"), true);
    assert_eq!(kept.counts(), (1, 2));
    assert_eq!(kept.find("0101").len(), 1);
    assert!(kept.find("0202").is_empty());
    let ids = |hex| -> Vec<u64> { kept.find(hex).iter().map(|it| it.came_ms).collect() };
    assert_eq!(ids("0"), [5, 4, 1], "the newest first");
    for _ in 0..MAX_EXPLAINED {
        kept.keep(explanation(9, "internal"), false);
    }
    assert_eq!(kept.counts(), (MAX_EXPLAINED, 2), "each kind has its room");
    assert!(kept.find("0101").is_empty());
}
