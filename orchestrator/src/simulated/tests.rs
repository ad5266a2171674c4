//! What users would notice of how requests are placed, over simulated time.

use super::{Outcome, Policy, Traffic};
use crate::placement::Placement;

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
    for seed in 0..3 {
        let traffic = Traffic {
            orchestrators: 8,
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
        assert!(ours.waited < 0.05, "{ours:?}");
        assert!(ours.waited < random.waited / 2.0, "{ours:?} {random:?}");
        assert!(ours.hottest_load < random.hottest_load, "{ours:?}");
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
