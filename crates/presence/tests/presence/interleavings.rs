//! All stories of a small model, to their ends: there is no ghost in any of them, and whoever beats
//! is there. [T-LIV-1] to [T-LIV-6]

use crate::model::{Cache, Model, Step, Way};

/// Follows every way on from here, and says how many steps were tried.
fn follow(
    model: &Model,
    steps: &[Step],
    left: usize,
    history: &mut Vec<Step>,
    cache: &mut Cache,
) -> usize {
    if left == 0 {
        return 0;
    }
    let replays = (0..model.made.len())
        .flat_map(|which| [Step::Replay(which, 0), Step::Replay(which, -5_000)]);
    let mut tried = 0;
    for step in steps.iter().copied().chain(replays) {
        let mut next = model.clone();
        next.step(step, cache);
        history.push(step);
        next.assert_no_ghost(history);
        if let Step::Beats(n, Way::Direct) = step
            && !next.is_revoked(n)
        {
            next.assert_alive(n, history);
        }
        tried += 1 + follow(&next, steps, left - 1, history, cache);
        history.pop();
    }
    tried
}

#[test]
fn no_story_of_one_node_has_a_ghost() {
    let steps = [
        Step::Beats(1, Way::Direct),
        Step::Beats(1, Way::Relayed),
        Step::Beats(1, Way::Recorded),
        Step::Leaves(1, Way::Direct),
        Step::Leaves(1, Way::Relayed),
        Step::Restarts(1),
        Step::Wait(8_000),
        Step::Wait(16_000),
        Step::Forget,
    ];
    let tried = follow(
        &Model::new(&[0]),
        &steps,
        5,
        &mut Vec::new(),
        &mut Cache::new(),
    );
    assert!(tried > 100_000, "{tried}");
}

#[test]
fn no_story_of_two_nodes_has_a_ghost() {
    let steps = [
        Step::Beats(1, Way::Direct),
        Step::Beats(2, Way::Relayed),
        Step::Beats(1, Way::Recorded),
        Step::Leaves(1, Way::Recorded),
        Step::Leaves(2, Way::Relayed),
        Step::Restarts(1),
        Step::Revoke(2),
        Step::LinkLost(1),
        Step::Wait(16_000),
        Step::Forget,
    ];
    let model = Model::new(&[-5_000, 5_000]);
    let tried = follow(&model, &steps, 5, &mut Vec::new(), &mut Cache::new());
    assert!(tried > 100_000, "{tried}");
}
