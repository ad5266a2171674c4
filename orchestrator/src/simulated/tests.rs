//! What users would notice of how requests are placed, over simulated time.

use super::{Crowd, Outcome, Policy, Shape, Traffic};
use crate::placement::Placement;
use crate::warmth::{Warm, Warmth};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn outcomes<const N: usize>(traffic: &Traffic, policies: [Policy; N]) -> [Outcome; N] {
    let placement = Placement::default();
    let all = policies.map(|policy| traffic.run(policy, &placement));
    for (policy, outcome) in policies.iter().zip(&all) {
        println!("seed {}: {policy:?}: {outcome:?}", traffic.seed);
    }
    all
}

#[test]
fn orchestrators_that_do_not_know_of_each_others_requests_do_not_all_choose_one_worker() {
    // The more there are, the less each knows of what there is, and the less is gained over chance.
    let cases = [
        (0, 1, 0.1),
        (1, 3, 0.5),
        (2, 3, 0.5),
        (3, 8, 1.0),
        (4, 8, 1.0),
    ];
    for (seed, orchestrators, most) in cases {
        let traffic = Traffic {
            orchestrators,
            by_beginning: false,
            workers: 48,
            slots: 4,
            busy_percent: 50,
            beginnings: 1,
            kept: 0,
            requests: 6_000,
            seed,
        };
        let policies = [Policy::Load, Policy::Beats, Policy::Random];
        let [ours, herd, random] = outcomes(&traffic, policies);
        assert!(herd.waited > 0.5, "what a herd is: {herd:?}");
        assert!(ours.waited < most * random.waited, "{ours:?} {random:?}");
        assert!(
            ours.hottest_load < random.hottest_load,
            "{ours:?} {random:?}"
        );
        assert!(ours.hottest_requests < 1.5, "{ours:?}");
    }
}

/// Requests of which many begin alike.
fn alike(orchestrators: usize, seed: u64) -> Traffic {
    Traffic {
        orchestrators,
        by_beginning: false,
        workers: 48,
        slots: 4,
        busy_percent: 50,
        beginnings: 600,
        kept: 16,
        requests: 6_000,
        seed,
    }
}

#[test]
fn prompts_that_begin_alike_go_where_they_went_and_make_no_hotspot() {
    for seed in 0..3 {
        let traffic = alike(1, seed);
        let policies = [Policy::Affinity, Policy::Random, Policy::Pure];
        let [ours, random, pure] = outcomes(&traffic, policies);
        assert!(ours.warm > 1.5 * random.warm, "{ours:?} {random:?}");
        assert!(pure.hottest_load > 5.0, "what a hotspot is: {pure:?}");
        assert!(ours.hottest_load < random.hottest_load, "{ours:?}");
        assert!(ours.waited < 0.05, "{ours:?}");
    }
}

#[test]
fn beginnings_that_come_to_one_of_several_orchestrators_are_warm_more_often_than_by_any_of_them() {
    for seed in 0..3 {
        let anywhere = alike(3, seed);
        let by_beginning = Traffic {
            by_beginning: true,
            ..anywhere
        };
        let warm = |traffic: &Traffic| outcomes(traffic, [Policy::Affinity])[0].warm;
        let (anywhere, by_beginning) = (warm(&anywhere), warm(&by_beginning));
        assert!(by_beginning > anywhere + 0.05, "{by_beginning} {anywhere}");
    }
}

/// What all of several orchestrators together give the worker where they know a beginning to be warm,
/// each of which knows how much the others have given whom, but not what they do now; as a multiple of
/// the mean, and the mean.
fn given_to_one(orchestrators: u32, each: u32) -> (f64, f64) {
    let placement = Placement::default();
    let shape = Shape {
        workers: 48,
        artifacts: 1,
        regions: 1,
        slots: 32,
    };
    let mut at_home = 0;
    for seed in 0..orchestrators {
        let crowd = Crowd::new(shape, &placement, u64::from(seed)).among(orchestrators);
        // So long ago that only the mean is believed.
        let (now_ms, fleet) = (60_000, crowd.snapshot());
        let mut warmth = Warmth::default();
        let prompt = super::traffic::prompt(0, 0);
        let (artifact, home) = (crowd.artifact(0), crowd.home(crowd.id(0)));
        warmth.sent(&artifact, &prompt, home, 0);
        let warm = warmth.find(&artifact, &prompt, 0);
        for n in 0..shape.workers {
            crowd.says(n, (orchestrators - 1) * each, 0);
        }
        let mut rng = StdRng::seed_from_u64(u64::from(seed));
        let mut guards = Vec::new();
        for _ in 0..each * 48 {
            let placed = crowd.place(&fleet, (0, 0, now_ms), &warm, &placement, &mut rng);
            let best = placed.best().expect("somebody").candidate.worker.clone();
            at_home += u32::from(best.id() == home.worker);
            guards.push(best.occupy());
        }
    }
    let mean = f64::from(orchestrators * each);
    (f64::from(at_home) / mean, mean)
}

#[test]
fn orchestrators_that_know_one_worker_to_be_warm_add_together_no_more_to_its_load_than_one_may() {
    let most = f64::from(Placement::default().prefix_load);
    for (orchestrators, each) in [(1, 16), (2, 8), (3, 6), (8, 2), (8, 8)] {
        let (given, mean) = given_to_one(orchestrators, each);
        println!("{orchestrators}: {given} of the mean {mean}");
        // Each rounds up to whole requests, and the mean of those that it looks at is not that of all.
        assert!(
            given <= most + 2.0 * f64::from(orchestrators) / mean,
            "{given}"
        );
        assert!(given > 1.0, "it is preferred all the same: {given}");
    }
}

#[test]
fn a_beginning_that_all_prompts_share_makes_no_hotspot_however_many_orchestrators_place_them() {
    // 16 requests at each on average; each orchestrator rounds up to whole ones.
    let most =
        |orchestrators: f64| f64::from(Placement::default().prefix_load) + orchestrators / 16.0;
    for orchestrators in [1, 3, 8] {
        let hottest = [5, 6, 7].map(|seed| {
            let traffic = Traffic {
                orchestrators,
                by_beginning: false,
                workers: 48,
                slots: 32,
                busy_percent: 50,
                beginnings: 1,
                kept: 16,
                requests: 20_000,
                seed,
            };
            let [ours] = outcomes(&traffic, [Policy::Affinity]);
            ours.hottest_load
        });
        // What is found is the highest of 48 loads that vary, and of all times.
        let mean = hottest.iter().sum::<f64>() / 3.0;
        let most = most(orchestrators as f64) + 0.35;
        assert!(mean < most, "{orchestrators}: {hottest:?}");
    }
}

#[test]
fn no_candidate_costs_an_allocation_however_many_are_looked_at() {
    let placement = Placement::default();
    let of = |workers| {
        let shape = Shape {
            workers,
            artifacts: 1,
            regions: 1,
            slots: 4,
        };
        let crowd = Crowd::new(shape, &placement, 1);
        let fleet = crowd.snapshot();
        let mut rng = StdRng::seed_from_u64(1);
        let warm = Warm::default();
        let mut looked_at = 0;
        let counted = allocation_counter::measure(|| {
            let placed = crowd.place(&fleet, (0, 0, 0), &warm, &placement, &mut rng);
            looked_at = placed.choice.looked_at;
        });
        (looked_at, counted.count_total)
    };
    let ((few, for_few), (many, for_many)) = (of(2), of(1_000));
    assert!(few == 2 && many > 5 * few, "{few}, {many}");
    assert!(
        for_many <= for_few,
        "{for_many} allocations, and {for_few} for {few}"
    );
}
