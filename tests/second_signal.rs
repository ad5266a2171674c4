//! A second SIGTERM, or ^C, while a process drains: it ends at once, and so do its engines. An answer
//! that a worker left so goes on once a worker is there again.

mod support;

use serde_json::json;
use std::path::Path;
use support::{Mesh, client, eventually, is_alive, runtime, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What a caller read of a stream until that ended, well or not.
struct Read {
    text: String,
}

/// A stream that goes on long after both signals; returns when its answer has begun.
fn long_answer(mesh: &Mesh) -> JoinHandle<Read> {
    // Whatever is drawn, it is not the end of the answer.
    let asked = client()
        .post(format!("{}/v1/chat/completions", mesh.gateway()))
        .bearer_auth(mesh.api_key())
        .json(&json!({
            "model": mesh.model(),
            "messages": [{"role": "user", "content": "Count to 200."}],
            "logit_bias": {"1": -100},
            "max_tokens": 600,
            "stream": true,
        }));
    let (began, begun) = oneshot::channel();
    let reading = runtime().spawn(async move {
        let mut response = asked.send().await.expect("an answer");
        let (mut text, mut began) = (String::new(), Some(began));
        while let Ok(Some(bytes)) = response.chunk().await {
            text += &String::from_utf8_lossy(&bytes);
            if text.matches("\"content\":").count() > 1 {
                let _ = began.take().map(|it| it.send(()));
            }
        }
        Read { text }
    });
    (runtime().block_on(begun)).expect("the answer begins");
    reading
}

impl Read {
    fn was_cut_off(&self) -> bool {
        !self.text.contains("[DONE]") && !self.text.contains("\"finish_reason\":\"")
    }

    fn end(&self) -> String {
        let end: Vec<char> = self.text.chars().rev().take(400).collect();
        end.into_iter().rev().collect()
    }
}

fn read(reading: JoinHandle<Read>) -> Read {
    runtime().block_on(reading).expect("the reader ends")
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let texts = tasks.filter_map(|it| std::fs::read_to_string(it.path().join("children")).ok());
    texts
        .flat_map(|text| {
            let pids = text.split_whitespace().map(|it| it.parse().expect("a pid"));
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

/// What the only worker logged.
fn worker_log(dir: &Path) -> String {
    let workers = std::fs::read_dir(dir.join("workers")).expect("workers");
    let logs = workers.flatten().map(|it| it.path().join("worker.log"));
    logs.filter_map(|it| std::fs::read_to_string(it).ok())
        .collect()
}

#[test]
fn a_worker_that_is_told_twice_ends_at_once_and_the_answer_goes_on_when_it_is_back() {
    let mesh = Mesh::start(&[]);
    let (_, worker) = mesh.workers()[0].clone();
    let engines = children(worker);
    assert!(!engines.is_empty(), "it is served");
    let reading = long_answer(&mesh);
    for (name, told) in [
        ("TERM", "SIGTERM: draining; a second signal stops at once"),
        ("INT", "SIGINT while draining: stopping at once"),
    ] {
        assert!(
            is_alive(worker) && engines.iter().all(|it| is_alive(*it)),
            "not before {name}"
        );
        signal(worker, name);
        eventually(told, || worker_log(mesh.dir()).contains(told));
    }
    eventually("it is gone", || !is_alive(worker));
    eventually("and its engines", || {
        !engines.iter().any(|it| is_alive(*it))
    });
    let read = read(reading);
    assert!(!read.was_cut_off(), "{}", read.end());
}

#[test]
fn a_mesh_that_is_told_twice_ends_in_the_middle_of_an_answer_and_leaves_nothing() {
    let mesh = Mesh::start(&[]);
    let up = mesh.pid();
    let (_, worker) = mesh.workers()[0].clone();
    let engines = children(worker);
    let reading = long_answer(&mesh);
    signal(up, "INT");
    eventually("it drains", || {
        mesh.log().contains("draining; once more stops at once")
    });
    assert!(is_alive(up) && is_alive(worker));
    // The second one.
    assert_eq!(mesh.stop(), Some(0));
    assert!(!is_alive(worker));
    eventually("no engine is left", || {
        !engines.iter().any(|it| is_alive(*it))
    });
    let read = read(reading);
    assert!(
        read.was_cut_off(),
        "it was drained to its end: {}",
        read.end()
    );
}
