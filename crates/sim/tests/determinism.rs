//! A failure is found again by its seed.

use std::path::Path;
use tether_sim::tether::Tether;
use tether_sim::{Scenario, run};

fn restart() -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sim/restart.toml");
    Scenario::load(&path)
        .and_then(|scenario| scenario.with_nodes(40))
        .expect("a scenario of the tree is valid")
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let scenario = restart();
    let [first, again, other] = [7, 7, 8].map(|seed| run::<Tether>(&scenario, seed));
    assert_eq!(first.trace, again.trace);
    assert_eq!(first.events, again.events);
    assert_eq!(first.rejected, again.rejected);
    assert_ne!(first.trace, other.trace);
}
