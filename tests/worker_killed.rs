//! `kill -9` of workers: a tenant notices nothing while another is there, and `up` starts the dead
//! again, also one that lives and says nothing, or while the disk is full. What a tenant is told when none is left is in `five_processes.rs`, where nothing does.

mod support;

use support::{Mesh, eventually, is_alive, signal};

/// Rounds of killing one of two workers, in each mesh.
const ROUNDS: usize = 25;
/// Meshes in which it is done, at the same time.
const MESHES: usize = 2;

#[test]
fn a_request_right_after_one_of_two_workers_was_killed_succeeds_on_the_other() {
    std::thread::scope(|scope| {
        for _ in 0..MESHES {
            scope.spawn(kill_and_ask);
        }
    });
}

fn kill_and_ask() {
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
fn a_worker_that_dies_while_run_json_cannot_be_written_takes_no_mesh_down() {
    let mesh = Mesh::start(&[]);
    let (id, pid) = mesh.workers()[0].clone();
    let (run_file, aside) = (mesh.dir().join("run.json"), mesh.dir().join("aside"));
    // A folder in its place stands for a full disk: the file cannot be replaced, by root neither.
    std::fs::rename(&run_file, &aside).expect("moved");
    std::fs::create_dir(&run_file).expect("made");
    signal(pid, "KILL");
    eventually("it is told", || {
        mesh.log().contains("run.json is out of date")
    });
    eventually("the worker is back and answers", || {
        let reply = mesh.chat("What is the capital of France?");
        reply.status == 200 && reply.worker() == id
    });
    assert!(is_alive(mesh.pid()));
    std::fs::remove_dir(&run_file).expect("there is space again");
    eventually("it is written", || run_file.exists());
    let (same, new) = mesh.workers()[0].clone();
    assert!(same == id && new != pid && is_alive(new));
    let told = mesh.log().matches("run.json is out of date").count();
    assert_eq!(told, 1, "{}", mesh.log());
    assert_eq!(mesh.stop(), Some(0));
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
