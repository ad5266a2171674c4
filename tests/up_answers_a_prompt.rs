//! One command starts a mesh that answers: what it prints, keeps, and leaves behind.

mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Mesh, PATIENCE, eventually, get, is_alive};

#[test]
fn up_answers_a_prompt_and_says_how_to_ask_the_next() {
    let mesh = Mesh::start(&["--workers", "2"]);
    let ready = &mesh.ready;

    for field in ["gateway", "metrics", "api_key", "model", "mesh", "data_dir"] {
        assert!(ready[field].is_string(), "{field} in {ready}");
    }
    assert_eq!(ready["model"], "tether-tiny");
    assert_eq!(ready["workers"].as_array().map(Vec::len), Some(2));
    assert!(
        ready["bootstrap"]
            .as_array()
            .is_some_and(|nodes| nodes.len() >= 10)
    );
    let topics: Vec<&str> = ready["topics"]
        .as_array()
        .expect("topics")
        .iter()
        .map(|topic| {
            assert_eq!(topic["key"].as_str().map(str::len), Some(64), "{topic}");
            topic["name"].as_str().expect("a name")
        })
        .collect();
    for name in [
        "tether/presence/local",
        "tether/control/local",
        "tether/models/tether-tiny/1.0/local",
    ] {
        assert!(topics.contains(&name), "{name} in {topics:?}");
    }

    // Ready means that every worker gets work.
    assert_eq!(mesh.routable(), 2, "{:?}", mesh.fleet());
    let reply = mesh.chat("What is the capital of France?");
    assert!(reply.answer().contains("Paris"), "{}", reply.text);
    let ids: Vec<String> = mesh.workers().into_iter().map(|(id, _)| id).collect();
    assert!(
        ids.iter().any(|id| id == reply.worker()),
        "{}",
        reply.worker()
    );
    let usage = &reply.json()["usage"];
    let count = |name: &str| usage[name].as_u64().expect("a count");
    assert!(count("prompt_tokens") > 0 && count("completion_tokens") > 0);
    assert_eq!(
        count("total_tokens"),
        count("prompt_tokens") + count("completion_tokens")
    );

    // The edges that a tenant meets.
    let models = get(&format!("{}/v1/models", mesh.gateway()), mesh.api_key());
    assert_eq!(models.status, 200, "{}", models.text);
    assert!(models.text.contains("tether-tiny"));
    let stranger = get(&format!("{}/v1/models", mesh.gateway()), "tk-wrong");
    assert_eq!(stranger.status, 401, "{}", stranger.text);
    let unknown = mesh.chat_body(&json!({
        "model": "no-such-model",
        "messages": [{"role": "user", "content": "Hello"}],
    }));
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    // What only the worker's engine can know is told as well as what the gateway knows.
    let biased = mesh.chat_body(&json!({
        "model": "tether-tiny",
        "messages": [{"role": "user", "content": "Hello"}],
        "logit_bias": {"99999999": 1},
    }));
    assert_eq!(biased.status, 400, "{}", biased.text);
    let error = &biased.json()["error"];
    assert_eq!(error["param"], "logit_bias");
    let says = error["message"].as_str().expect("words");
    assert!(says.contains("99999999"), "{says}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            get(&format!("{}{path}", mesh.gateway()), "").status,
            200,
            "{path}"
        );
    }
    let metrics = get(ready["metrics"].as_str().expect("a URL"), "");
    assert_eq!(metrics.status, 200);
    let admin = ready["admin"].as_str().expect("a URL");
    let orchestrators = get(&format!("{admin}/metrics"), "");
    assert_eq!(orchestrators.status, 200);
    // Each role counts for itself: the gateway's links are not among the orchestrator's.
    for (text, own, other) in [
        (&metrics.text, "tether_gateway_", "tether_orchestrator_"),
        (
            &orchestrators.text,
            "tether_orchestrator_",
            "tether_gateway_",
        ),
    ] {
        assert!(text.contains(own) && text.contains("tether_net_"), "{text}");
        assert!(!text.contains(other), "{text}");
    }

    // What is kept is kept to its owner.
    assert_eq!(mesh.run_file(), *ready);
    let mode = |name: &str| {
        let meta = std::fs::metadata(mesh.dir().join(name)).expect(name);
        meta.permissions().mode() & 0o777
    };
    for secret in ["run.json", "api-key", "mesh/operator.key", "publisher.key"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }

    // A second one in the same folder is refused and disturbs nothing.
    let dir = mesh.dir().to_str().expect("UTF-8");
    let second = support::Tether::output(&["up", "--gateway", "127.0.0.1:0", "--data-dir", dir]);
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(words.contains("another `tether up`"), "{words}");
    assert!(
        mesh.chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );

    // A log does not fill the disk while the mesh runs; what it held is kept once.
    let log = mesh.dir().join("workers/1/worker.log");
    let large = 11 << 20;
    let file = std::fs::OpenOptions::new().write(true).open(&log);
    file.and_then(|file| file.set_len(large)).expect("grown");
    eventually("the log begins again", || {
        std::fs::metadata(&log).expect("the log").len() < 1 << 20
    });
    let old = std::fs::metadata(log.with_extension("log.old")).expect("the old log");
    assert!(old.len() >= large);

    // `tether chat` finds the mesh by its data folder.
    let said = support::Tether::ok(&["chat", "--data-dir", dir, "What is the capital of France?"]);
    assert!(said.contains("Paris"), "{said}");
}

#[test]
fn the_printed_curl_is_one_that_answers_and_does_not_guess() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut up = Command::new(support::tether())
        .args(["up", "--gateway", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let stdout = BufReader::new(up.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    for line in stdout.lines() {
        let line = line.expect("UTF-8");
        let last = line.starts_with("Ready:");
        lines.push(line);
        if last {
            break;
        }
    }
    let said = lines.join("\n");
    let between = |begin: &str, end: &str| {
        let (_, rest) = said.split_once(begin).expect(begin);
        rest.split_once(end).expect(end).0.to_owned()
    };
    let url = between("curl ", " ");
    let key = between("Bearer ", "'");
    let body: Value = serde_json::from_str(&between("-d '", "'")).expect("JSON");
    assert_eq!(body["temperature"], 0, "{said}");
    let reply = support::post(&url, &key, &body);
    assert!(reply.answer().contains("Paris"), "{}", reply.text);
    support::signal(up.id(), "TERM");
    assert!(up.wait().expect("a child").success());
}

#[test]
fn a_clean_stop_leaves_no_process_and_a_new_start_is_the_same_mesh() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let first = Mesh::start_in(dir.path(), &[]);
    let (before, pids) = (first.ready.clone(), first.workers());
    assert_eq!(first.stop(), Some(0));
    assert!(!dir.path().join("run.json").exists(), "nothing runs");
    for (_, pid) in pids {
        assert!(!is_alive(pid), "worker {pid} is an orphan");
    }
    let second = Mesh::start_in(dir.path(), &[]);
    for field in ["mesh", "api_key", "model", "topics"] {
        assert_eq!(before[field], second.ready[field], "{field}");
    }
    let ids = |ready: &Value| ready["workers"][0]["id"].clone();
    assert_eq!(ids(&before), ids(&second.ready), "the same identity");
    assert!(
        second
            .chat("What is the capital of France?")
            .answer()
            .contains("Paris")
    );
    second.stop();
}

#[test]
fn no_worker_outlives_an_up_that_was_killed() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mesh = Mesh::start_in(dir.path(), &["--workers", "2"]);
    let workers = mesh.workers();
    let engines: Vec<u32> = workers.iter().flat_map(|(_, pid)| children(*pid)).collect();
    assert!(!engines.is_empty(), "each worker has an engine process");
    mesh.kill();
    eventually("workers and engines are gone", || {
        workers
            .iter()
            .map(|(_, pid)| pid)
            .chain(&engines)
            .all(|pid| !is_alive(*pid))
    });
}

#[test]
fn a_gateway_port_that_is_taken_is_named_and_a_free_one_suggested() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("temporary folder");
    let output = Command::new(support::tether())
        .args(["up", "--gateway", &addr, "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains(&addr), "{words}");
    assert!(words.contains("--gateway 127.0.0.1:0"), "{words}");
}

#[test]
fn a_stop_lets_an_answer_in_flight_finish() {
    let mesh = Mesh::start(&[]);
    let url = format!("{}/v1/chat/completions", mesh.gateway());
    let body = json!({
        "model": mesh.model(),
        "messages": [{"role": "user", "content": "Count to 200."}],
        "temperature": 0,
        "max_tokens": 1_000,
        "stream": true,
    });
    let key = mesh.api_key().to_owned();
    let pid = mesh.pid();
    support::runtime().block_on(async {
        let mut response = support::client()
            .post(&url)
            .bearer_auth(&key)
            .json(&body)
            .timeout(PATIENCE)
            .send()
            .await
            .expect("an answer begins");
        let mut text = String::new();
        let mut stopped = false;
        while let Some(bytes) = response.chunk().await.expect("the stream is not cut") {
            text.push_str(&String::from_utf8_lossy(&bytes));
            if !stopped && text.contains("delta") {
                support::signal(pid, "TERM");
                stopped = true;
            }
        }
        assert!(text.contains("[DONE]"), "{text}");
        assert!(!text.contains("\"error\""), "{text}");
    });
    eventually("up has ended", || !is_alive(pid));
}

/// Process ids of the children of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
