//! Looks at all links for those that have become quiet, or lively again [T-LNK-5], counts those
//! that go through a relay, and sees when this machine has moved.

use super::Inner;
use crate::link::Link;
use crate::link::quiet::Looks;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// One task for all links, until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let mut looks = Looks::new(node.limits.quiet_after, Instant::now());
    let mut ticks = tokio::time::interval(looks.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let passed = looks.passed(Instant::now());
                node.endpoint.look_around().await;
                let links = node.links.all();
                node.links.count_relayed(&links);
                look(&node, &links, passed);
            }
            () = node.look.notified() => look(&node, &node.links.all(), Duration::ZERO),
            () = node.stop.cancelled() => return,
        }
    }
}

/// Looks at each, `passed` after the look before.
fn look(node: &Inner, links: &[Link], passed: Duration) {
    for link in links {
        if let Some(turn) = link.look(passed) {
            node.links.turned(link, turn);
        }
    }
}
