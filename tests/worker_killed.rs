//! `kill -9` of workers: a tenant notices nothing while another is there, and `up` starts the dead
//! again, also one that lives and says nothing. What a tenant is told when none is left is in `five_processes.rs`, where nothing does.

mod support;

use support::{Mesh, eventually, is_alive, signal};

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

#[test]
fn a_worker_that_is_stopped_and_never_ends_is_started_again() {
    let mesh = Mesh::start(&[]);
    let (id, pid) = mesh.workers()[0].clone();
    signal(pid, "STOP");
    eventually("it has expired from the fleet", || mesh.fleet().is_empty());
    eventually("its process is ended and started again", || {
        let (same, new) = mesh.workers()[0].clone();
        assert_eq!(id, same);
        new != pid && is_alive(new)
    });
    assert!(!is_alive(pid));
    eventually("it gets work again", || mesh.routable() == 1);
    assert!(
        mesh.chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );
}
