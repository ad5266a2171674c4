//! What a provider meets: a worker is set up by one command, and says what it does, what it earned
//! and why it gets no work. (WRK-7)

mod init;
#[path = "../support/operator.rs"]
mod operator;
#[path = "../support/mod.rs"]
mod support;
mod terminal;

use operator::text;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::{Mesh, Tether, eventually};

/// Exit codes.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const NOT_RUNNING: i32 = 4;

/// Exit code and both outputs.
fn tether(args: &[&str]) -> (i32, String) {
    let output = Tether::output(args);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("UTF-8");
    (output.status.code().expect("it exits"), said)
}

/// The token of an invite to a mesh that is made for it.
fn token(mesh: &Path) -> String {
    Tether::ok(&["mesh", "new", text(mesh)]);
    let by = ["invite", "new", "--operator", text(mesh)];
    let to = ["--region", "eu", "--bootstrap", "192.0.2.10:49737"];
    Tether::ok(&[&by[..], &to].concat())
}

#[test]
fn a_running_worker_says_what_it_serves_and_earned_to_its_user_alone() {
    let mesh = Mesh::start(&[]);
    let home = mesh.dir().join("workers/1");
    let status = || -> (i32, Value) {
        let (code, said) = tether(&["worker", "status", "--json", "--data-dir", text(&home)]);
        (code, serde_json::from_str(&said).unwrap_or(Value::Null))
    };
    let reply = mesh.chat("What is the capital of France?");
    let tokens = reply.json()["usage"]["completion_tokens"].as_u64();
    eventually("the answer is counted", || {
        status().1["served"]["completion_tokens"].as_u64() >= tokens
    });
    let (code, said) = status();
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["id"], reply.worker());
    assert_eq!(said["mesh"], mesh.ready["mesh"]);
    assert_eq!(
        (&said["is_routable"], &said["reasons"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(
        (&said["state"], &said["hearing"]),
        (&json!("serving"), &json!(1))
    );
    assert_eq!(said["models"][0]["state"], "warm");
    assert_eq!(said["models"][0]["model"]["name"], "tether-tiny");
    let served = &said["served"];
    let all = served["prompt_tokens"].as_u64().expect("a count")
        + served["completion_tokens"].as_u64().expect("a count");
    let price = served["price_per_1k_micro"].as_u64().expect("a price");
    assert_eq!(served["earned_micro"].as_u64(), Some(all * price / 1_000));

    let (code, said) = tether(&["worker", "status", "--data-dir", text(&home)]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "by its own count",
        "Orchestrators can send it work",
        "tether-tiny@1.0: warm",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }

    // While its file is edited it is asked all the same; one that does not run is told of the file.
    let config = home.join("worker.toml");
    let whole = std::fs::read_to_string(&config).expect("its configuration");
    for edited in [
        format!("{whole}\n[worker.quo"),
        whole.replace("[worker]", "[worker]\nslotz = 4"),
    ] {
        std::fs::write(&config, edited).expect("edited");
        let (code, said) = tether(&["worker", "status", "--data-dir", text(&home)]);
        assert_eq!(code, 0, "{said}");
        for words in ["note: ", "worker.toml", "Orchestrators can send it work"] {
            assert!(said.contains(words), "{words} in {said}");
        }
    }
    let elsewhere = mesh.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    let edited = std::fs::read_to_string(&config).expect("edited");
    let nameless: Vec<&str> = (edited.lines())
        .filter(|line| !line.starts_with("data_dir"))
        .collect();
    std::fs::write(elsewhere.join("worker.toml"), nameless.join("\n")).expect("written");
    let (code, said) = tether(&["worker", "status", "--data-dir", text(&elsewhere)]);
    assert_eq!((code, said.contains("slotz")), (CONFIG, true), "{said}");
    std::fs::write(&config, whole).expect("as it was");

    let socket = home.join("data/status.sock");
    let mode = std::fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
