//! What users would notice of how requests are placed, over simulated time.

use super::{Crowd, Outcome, Policy, Shape, Traffic};
use crate::placement::Placement;
use crate::warmth::Warm;
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

#[test]
fn prompts_that_begin_alike_go_where_they_went_and_make_no_hotspot() {
    for seed in 0..3 {
        let traffic = Traffic {
            orchestrators: 1,
            workers: 48,
            slots: 4,
            busy_percent: 50,
            beginnings: 600,
            kept: 16,
            requests: 6_000,
            seed,
        };
        let policies = [Policy::Affinity, Policy::Random, Policy::Pure];
        let [ours, random, pure] = outcomes(&traffic, policies);
        assert!(ours.warm > 1.5 * random.warm, "{ours:?} {random:?}");
        assert!(pure.hottest_load > 5.0, "what a hotspot is: {pure:?}");
        assert!(ours.hottest_load < random.hottest_load, "{ours:?}");
        assert!(ours.waited < 0.05, "{ours:?}");
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
