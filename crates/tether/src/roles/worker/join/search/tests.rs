//! Orchestrators, strangers, and those who never answer.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a node answers, whenever it is asked.
#[derive(Clone, Copy)]
enum Kind {
    LetsIn,
    /// Not before it was asked so many times.
    LetsInAt(u32),
    Spent,
    Forbids,
    /// Says that the invite is spent, and has proved nothing.
    Stranger,
    Unreachable,
    /// Takes the connection and says nothing.
    Hangs,
}

/// Nodes by number.
struct Village {
    nodes: Vec<Kind>,
    asked: AtomicU32,
}

fn id(n: usize) -> NodeId {
    NodeId([u8::try_from(n).expect("few"); 32])
}

impl Around for Village {
    type In = NodeId;

    async fn look_up(&self) -> Vec<NodeId> {
        (0..self.nodes.len()).map(id).collect()
    }

    async fn ask(&self, peer: NodeId) -> Said<NodeId> {
        let times = 1 + self.asked.fetch_add(1, Ordering::Relaxed);
        match self.nodes[usize::from(peer.0[0])] {
            Kind::LetsIn => Said::In(peer),
            Kind::LetsInAt(least) if times >= least => Said::In(peer),
            Kind::Spent => Said::Refused(JoinError::Spent("spent".to_owned())),
            Kind::Forbids => Said::Refused(JoinError::Refused("no".to_owned())),
            Kind::Stranger => Said::Unproven("the invite is spent".to_owned()),
            Kind::LetsInAt(_) | Kind::Unreachable => Said::Nothing("it is away".to_owned()),
            Kind::Hangs => std::future::pending().await,
        }
    }
}

/// A hang guard; the patience of the search is far shorter.
const GUARD: Duration = Duration::from_secs(30);

async fn searched(nodes: &[Kind]) -> Result<NodeId, Failure> {
    searched_for(nodes, Duration::from_secs(1)).await
}

async fn searched_for(nodes: &[Kind], patience: Duration) -> Result<NodeId, Failure> {
    let village = Village {
        nodes: nodes.to_vec(),
        asked: AtomicU32::new(0),
    };
    let times = Times {
        patience,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
    };
    let searched = tokio::time::timeout(GUARD, search(&village, &times));
    searched.await.expect("the patience is over")
}

/// The exit code of a search that failed.
fn code(failed: Result<NodeId, Failure>) -> u8 {
    match failed.expect_err("nobody lets it in") {
        Failure::Refused(error) => error.exit_code(),
        Failure::Nobody { .. } => 4,
    }
}

#[tokio::test]
async fn who_never_answers_is_waited_for_no_longer_than_the_patience() {
    assert_eq!(code(searched(&[Kind::Hangs; 40]).await), 4);
    // What was heard until then counts.
    let mut nodes = vec![Kind::Hangs; 40];
    nodes[0] = Kind::Spent;
    assert_eq!(code(searched(&nodes).await), 12);
    nodes[0] = Kind::LetsIn;
    assert_eq!(searched(&nodes).await.expect("let in"), id(0));
}

#[tokio::test]
async fn a_stranger_who_refuses_decides_neither_the_exit_code_nor_the_words() {
    let failed = searched(&[Kind::Stranger, Kind::Stranger, Kind::Unreachable]).await;
    match failed.expect_err("nobody lets it in") {
        Failure::Nobody { found: 3, why } => {
            assert!(why.contains("2 refused without having proved"), "{why}");
            assert!(why.contains("it is away"), "{why}");
            assert!(!why.contains("spent"), "{why}");
        }
        other => panic!("expected nobody of three, not {other:?}"),
    }
    assert_eq!(code(searched(&[Kind::Stranger, Kind::Forbids]).await), 1);
    let patient = [Kind::Stranger, Kind::LetsInAt(7)];
    assert_eq!(searched(&patient).await.expect("let in"), id(1));
}

#[tokio::test]
async fn orchestrators_that_refuse_are_believed_when_all_do_and_the_most_telling_one_is_heard() {
    for nodes in [
        [Kind::Spent, Kind::Forbids, Kind::Stranger],
        [Kind::Forbids, Kind::Spent, Kind::Spent],
    ] {
        // Long before the patience is over.
        assert_eq!(code(searched_for(&nodes, 2 * GUARD).await), 12);
    }
    assert_eq!(code(searched(&[Kind::Spent, Kind::Unreachable]).await), 12);
    let away = searched(&[Kind::Spent, Kind::LetsInAt(6)]).await;
    assert_eq!(away.expect("let in when it is back"), id(1));
}

#[tokio::test]
async fn where_nobody_is_found_it_is_said() {
    match searched(&[]).await.expect_err("nobody lets it in") {
        Failure::Nobody { found: 0, why } => assert_eq!(why, "nobody answers"),
        other => panic!("expected nobody, not {other:?}"),
    }
}
