//! `kill -9` of workers: a tenant notices nothing while another is there, and is told clearly when
//! none is.

mod support;

use std::time::Instant;
use support::{Mesh, PATIENCE, eventually, is_alive, signal};

/// Rounds of killing one of two workers.
const ROUNDS: usize = 50;

#[test]
fn a_request_right_after_one_of_two_workers_was_killed_succeeds_on_the_other() {
    let mesh = Mesh::start(&["--workers", "2"]);
    for round in 0..ROUNDS {
        eventually("both workers get work", || mesh.routable() == 2);
        let workers = mesh.workers();
        // In turn, so that the one that would have been chosen is hit half of the time.
        let (victim, pid) = &workers[round % 2];
        signal(*pid, "KILL");
        let reply = mesh.chat("What is the capital of France?");
        assert!(
            reply.answer().contains("Paris"),
            "round {round}: {}",
            reply.text
        );
        assert_ne!(
            reply.worker(),
            victim,
            "round {round}: the dead do not answer"
        );
        eventually("the worker is started again under its identity", || {
            let now = mesh.workers();
            let (id, new) = &now[round % 2];
            assert_eq!(id, victim);
            new != pid && is_alive(*new)
        });
    }
}

#[test]
fn without_any_worker_a_tenant_is_told_when_to_come_again() {
    let mesh = Mesh::start(&[]);
    let workers = mesh.workers();
    let (_, pid) = &workers[0];
    signal(*pid, "KILL");
    let begin = Instant::now();
    let reply = mesh.chat("What is the capital of France?");
    assert!(begin.elapsed() < PATIENCE, "it does not hang");
    println!(
        "status {} after {} ms",
        reply.status,
        begin.elapsed().as_millis()
    );
    // Refused with a time to come again; or, on a slow machine, the restarted worker was there already.
    if reply.status != 200 {
        assert_eq!(reply.status, 503, "{}", reply.text);
        let after = reply.header("retry-after").expect("Retry-After");
        assert!(
            after.parse::<u64>().is_ok_and(|seconds| seconds >= 1),
            "{after}"
        );
        let error = &reply.json()["error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
    eventually("the worker answers again", || {
        mesh.chat("What is the capital of France?").status == 200
    });
}

#[test]
fn a_worker_that_keeps_dying_is_started_again_and_again() {
    let mesh = Mesh::start(&[]);
    for _ in 0..3 {
        let (id, pid) = mesh.workers()[0].clone();
        signal(pid, "KILL");
        eventually("it is started again", || {
            let (same, new) = mesh.workers()[0].clone();
            assert_eq!(id, same);
            new != pid && is_alive(new)
        });
    }
    eventually("it gets work again", || mesh.routable() == 1);
    assert!(
        mesh.chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );
}
