//! The simulator is not blind: what is wrong on purpose is found, by seed and in words.

#[path = "support/naive.rs"]
mod naive;

use naive::Naive;
use tether_presence::Now;
use tether_sim::machine::{How, Input, Machine, Output};
use tether_sim::tether::Tether;
use tether_sim::verifier::Verifier;
use tether_sim::{Scenario, replay, run};
use tether_wire::{MeshId, NodeId};

const LEAVING: &str = r#"
    name = "leaving"
    about = "a third of the workers is killed"
    nodes = 30
    orchestrators = 4
    duration_s = 100.0
    [[disturbance]]
    kind = "leave"
    at_s = 20.0
    share = 0.3
    crashes = 1.0
    [expect]
    converge_within_ms = 20000
"#;

fn leaving() -> Scenario {
    Scenario::parse(LEAVING).expect("valid")
}

#[test]
fn ours_holds_where_the_wrong_ones_fail() {
    let outcome = run::<Tether>(&leaving(), 1);
    assert!(outcome.holds(), "{:?}", outcome.failures);
}

#[test]
fn nodes_that_gossip_keeps_alive_are_found_as_ghosts() {
    let replay = replay::<Naive>(&leaving(), 1);
    assert!(replay.outcome.ghosts > 0 && !replay.outcome.holds());
    assert_eq!(replay.outcome.converged_ms, None, "the dead stay for ever");
    let violation = replay.violation.expect("the first ghost");
    assert!(violation.what.contains("ghost"), "{}", violation.what);
    assert!(
        replay
            .lines
            .iter()
            .any(|line| line.contains("stops: Killed")),
        "the trace tells how it died: {:?}",
        replay.lines
    );
}

/// Ours, but for one thing that it does wrong.
struct Wrong<const WHAT: u8>(Tether);

/// What is gone is said to be live again, half a minute later.
const REVIVES: u8 = 0;
/// Who lives is now and then said to have expired.
const FORGETS: u8 = 1;

impl<const WHAT: u8> Machine for Wrong<WHAT> {
    fn start(own: NodeId, mesh: MeshId, now: Now, seed: u64) -> Self {
        Self(Tether::start(own, mesh, now, seed))
    }

    fn handle(&mut self, input: Input, now: Now, verifier: &Verifier, outputs: &mut Vec<Output>) {
        self.0.handle(input, now, verifier, outputs);
        for output in outputs.iter_mut() {
            match output {
                Output::Gone(node, How::Expired) if WHAT == REVIVES => {
                    *output = Output::Live {
                        node: *node,
                        carded: true,
                    };
                }
                Output::Live { node, .. } if WHAT == FORGETS && now.unix_ms.is_multiple_of(97) => {
                    *output = Output::Gone(*node, How::Expired);
                }
                _ => {}
            }
        }
    }

    fn shows(&self, node: &NodeId) -> bool {
        self.0.shows(node)
    }
}

#[test]
fn a_single_revived_node_is_found() {
    let outcome = run::<Wrong<REVIVES>>(&leaving(), 1);
    assert!(outcome.ghosts > 0, "{:?}", outcome.failures);
    let told = outcome.failures.iter().any(|it| it.contains("otherwise"));
    assert!(told, "what a machine says and shows is compared, too");
}

#[test]
fn a_living_node_that_expires_is_found() {
    let outcome = run::<Wrong<FORGETS>>(&leaving(), 1);
    assert!(outcome.false_expiries > 0, "{:?}", outcome.failures);
}
