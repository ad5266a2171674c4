//! Configuration files: checked in full before anything starts.

use crate::operator::{CONFIG, Operator, fails, stderr, text};
use crate::support::{self, Tether};

/// A file's name, what is wrong in it, and words of the error.
type Mistake = (&'static str, fn(String) -> String, &'static [&'static str]);

#[test]
fn a_configuration_is_checked_before_anything_starts() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let good = operator.worker_config("good.toml", |text| text);
    let effective = Tether::ok(&["config", "check", text(&good)]);
    assert!(effective.contains("slots = 2"), "{effective}");
    let secret = std::fs::read_to_string(operator.path("w")).expect("read");
    let secret = secret.lines().last().expect("a seed");
    assert!(!effective.contains(secret), "secrets are only paths");

    let cases: [Mistake; 8] = [
        (
            "typo.toml",
            |t| t.replace("slots", "slotz"),
            &["typo.toml", "unknown key `worker.slotz`", "slots"],
        ),
        (
            "section.toml",
            |t| t + "[workr]\nx = 1\n",
            &["section.toml", "unknown key `workr`"],
        ),
        (
            "type.toml",
            |t| t.replace("slots = 2", "slots = \"many\""),
            &["type.toml", "worker.slots"],
        ),
        (
            "key.toml",
            |t| t.replace("\"w\"", "\"nobody\""),
            &["node.key", "nobody"],
        ),
        (
            "region.toml",
            |t| t.replace("\"eu\"", "\"us\""),
            &["node.grant", "region eu"],
        ),
        (
            "nogrant.toml",
            |t| t.replace("grant = \"w.grant\"\n", ""),
            &["node.grant", "tether grant issue"],
        ),
        ("broken.toml", |t| t.replace('[', "("), &["broken.toml"]),
        (
            "collector.toml",
            |t| t + "[telemetry]\notlp_endpoint = \"not a url\"\n",
            &["telemetry.otlp_endpoint", "not a url"],
        ),
    ];
    for (name, change, words) in cases {
        let path = operator.worker_config(name, change);
        fails(&["config", "check", text(&path)], CONFIG, words);
        // The role itself says the same, and does not start.
        fails(&["worker", "--config", text(&path)], CONFIG, words);
    }
    let none = Tether::output(&["config", "check", text(&operator.path("none.toml"))]);
    assert_eq!(none.status.code(), Some(CONFIG));
    let said = stderr(&none);
    assert!(said.contains("none.toml"), "{said}");
    assert_eq!(said.matches("os error 2").count(), 1, "told once: {said}");
    let nobody = operator.worker_config("nobody.toml", |text| {
        text.replace("[worker]\nslots = 2\n", "")
    });
    fails(
        &["config", "check", text(&nobody)],
        CONFIG,
        &["no role is configured", "[orchestrator]"],
    );
}

#[test]
fn a_check_refuses_the_files_that_a_start_would_refuse() {
    let operator = Operator::new();
    operator.issue("o", "orchestrator", &[]);
    let publisher = Tether::ok(&["keys", "new", text(&operator.path("publisher"))]);
    let stranger = Tether::ok(&["keys", "new", text(&operator.path("stranger"))]);
    let model = operator.path("model");
    std::fs::create_dir(&model).expect("made");
    let files = std::fs::read_dir(support::repository().join("crates/tiny-model/model"));
    for entry in files.expect("the committed model") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    Tether::ok(&[
        "artifact",
        "pack",
        text(&model),
        "--model",
        "tiny@1.0",
        "--key",
        text(&operator.path("publisher")),
    ]);
    let tenants =
        |text: &str| std::fs::write(operator.path("tenants.toml"), text).expect("written");
    let file = operator.path("o.toml");
    let write = |release: &str, trusted: &str| {
        let text = format!(
            "[node]\nkey = \"o\"\ngrant = \"o.grant\"\nmesh = \"{}\"\nregion = \"eu\"\n\
             bootstrap = [\"127.0.0.1:49737\"]\n\n[orchestrator]\ntenants = \"tenants.toml\"\n\
             releases = [\"{release}\"]\ntrusted_publishers = [\"{trusted}\"]\n\
             admin = \"127.0.0.1:0\"\n",
            operator.mesh
        );
        std::fs::write(&file, text).expect("written");
    };
    let refused = |words: &[&str]| {
        fails(&["config", "check", text(&file)], CONFIG, words);
        fails(&["orchestrator", "--config", text(&file)], CONFIG, words);
    };
    write("model", &publisher);
    refused(&["orchestrator.tenants", "tenants.toml"]);
    tenants("[[tenant]]\nname = \"x\"\n");
    refused(&["orchestrator.tenants", "line"]);
    tenants("");
    Tether::ok(&["config", "check", text(&file)]);
    write("nowhere", &publisher);
    refused(&["orchestrator.releases", "nowhere"]);
    write("model", &stranger);
    refused(&["orchestrator.releases", &publisher]);

    // A worker serves what else it has, so that a model that is not there is told and no more.
    operator.issue("w", "worker", &["--region", "eu"]);
    let worker = operator.worker_config("w.toml", |text| {
        format!(
            "{text}trusted_publishers = [\"{publisher}\"]\n[[worker.models]]\npath = \"gone\"\n"
        )
    });
    let output = Tether::output(&["config", "check", text(&worker)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("warning") && said.contains("gone holds no tether.manifest"),
        "{said}"
    );
}

#[test]
fn another_meshs_grant_is_refused_by_name() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    ours.issue("w", "worker", &["--region", "eu"]);
    let path = ours.worker_config("other.toml", |text| text.replace(&ours.mesh, &theirs.mesh));
    fails(
        &["config", "check", text(&path)],
        CONFIG,
        &["node.grant", "does not hold in mesh", &theirs.mesh],
    );
}

#[test]
fn a_relay_is_checked_before_anything_starts() {
    let operator = Operator::new();
    let bootstrap = |relay: &str| {
        let file = operator.path("bootstrap.toml");
        let mesh = &operator.mesh;
        let text = format!("[bootstrap]\n[relay]\nmesh = \"{mesh}\"\n{relay}\n");
        std::fs::write(&file, text).expect("written");
        file
    };
    let good = bootstrap("listen = \"127.0.0.1:0\"");
    let effective = Tether::ok(&["config", "check", text(&good)]);
    assert!(effective.contains("max_clients = 1024"), "{effective}");
    for (wrong, words) in [
        ("", "listen"),
        (
            "listen = \"127.0.0.1:0\"\nmax_clients = 0",
            "relay.max_clients",
        ),
        (
            "listen = \"127.0.0.1:0\"\nclient_bytes_per_second = 10",
            "relay.client_bytes_per_second",
        ),
        ("listen = \"127.0.0.1:0\"\ntls = true", "tls"),
    ] {
        fails(
            &["config", "check", text(&bootstrap(wrong))],
            CONFIG,
            &[words],
        );
    }

    operator.issue("w", "worker", &["--region", "eu"]);
    let node = |relays: &str| {
        operator.worker_config("relays.toml", |text| {
            text.replace("region = ", &format!("relays = [{relays}]\nregion = "))
        })
    };
    Tether::ok(&["config", "check", text(&node("\"http://192.0.2.1:3340\""))]);
    for wrong in [
        "\"192.0.2.1\"".to_owned(),
        "\"http://192.0.2.1/x\"".to_owned(),
        "\"http://h/\",".repeat(9),
    ] {
        fails(
            &["config", "check", text(&node(&wrong))],
            CONFIG,
            &["node.relays"],
        );
    }
}
