//! Every scenario of `tests/sim`, in a small form: few nodes, three seeds.

use std::path::{Path, PathBuf};
use tether_sim::tether::Tether;
use tether_sim::{Scenario, report, run_all};

const NODES: usize = 80;
const SEEDS: std::ops::Range<u64> = 0..3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sim")
}

fn holds(name: &str) {
    let path = folder().join(format!("{name}.toml"));
    let scenario = Scenario::load(&path).expect("a scenario of the tree is valid");
    assert_eq!(scenario.name, name, "a file is named as its scenario");
    let scenario = scenario.with_nodes(NODES).expect("enough nodes");
    let outcomes = run_all::<Tether>(&scenario, SEEDS, 2, |_| {});
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert!(
            outcome.holds(),
            "{}: {:?}\nagain: cargo run --release -p tether-sim -- run tests/sim/{name}.toml --nodes {NODES} --replay {}",
            report::line(&outcome),
            outcome.failures,
            outcome.seed
        );
    }
}

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            holds($name);
        })*

        #[test]
        fn every_scenario_of_the_tree_is_run_here() {
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .expect("there are scenarios")
                .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
                .collect();
            files.sort();
            let mut here = vec![$($name.to_owned()),*];
            here.sort();
            assert_eq!(files, here);
        }
    };
}

scenarios! {
    churn_loss_and_a_partition_leave_no_ghost_and_expire_nobody_who_lives "churn"
    who_was_killed_is_suspect_in_every_view_within_two_seconds_and_a_half "kill"
    clocks_of_workers_that_are_wrong_hurt_nobody "skew"
    clocks_of_orchestrators_that_are_wrong_hurt_nobody "skew-orchestrators"
    a_replay_at_restarted_orchestrators_revives_nobody "restart"
    of_two_clones_the_later_one_wins_and_both_are_reported "clone"
    links_that_break_all_the_time_expire_nobody_who_is_connected "flaky-links"
    a_newcomer_has_the_fleet_within_an_interval "newcomer"
    workers_whose_orchestrators_die_find_others "orchestrators-die"
    a_worker_without_cpu_for_ten_seconds_does_not_expire "starve"
    a_revocation_reaches_orchestrators_behind_a_partition_and_restarted_ones "revoke"
    views_are_the_truth_again_after_messages_vanished "batch-loss"
}
