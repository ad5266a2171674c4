//! Settings in the environment.

use crate::operator::{CONFIG, Operator, stderr, text};
use crate::support::{self, Process};
use std::process::{Command, Output};

/// Runs `tether` with variables to its end.
fn with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(support::tether())
        .args(args)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs")
}

#[test]
fn the_environment_overrides_a_file_and_its_mistakes_are_named() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let path = operator.worker_config("w.toml", |text| text);
    let check = |name: &str, value: &str| with(&[(name, value)], &["config", "check", text(&path)]);
    let good = check("TETHER_WORKER__SLOTS", "7");
    assert!(String::from_utf8_lossy(&good.stdout).contains("slots = 7"));
    let bad = check("TETHER_WORKER__SLOTZ", "7");
    assert_eq!(bad.status.code(), Some(CONFIG));
    assert!(
        stderr(&bad).contains("TETHER_WORKER__SLOTZ"),
        "{}",
        stderr(&bad)
    );
    let wrong = check("TETHER_WORKER__SLOTS", "many");
    assert_eq!(wrong.status.code(), Some(CONFIG));
    assert!(
        stderr(&wrong).contains("TETHER_WORKER__SLOTS"),
        "{}",
        stderr(&wrong)
    );
    let missed = check("TETHER_WORKER_SLOTS", "7");
    assert_eq!(missed.status.code(), Some(CONFIG));
    assert!(
        stderr(&missed).contains("did you mean TETHER_WORKER__SLOTS?"),
        "{}",
        stderr(&missed)
    );
    let others = check("TETHER_GATEWAY__LISTEN", "nonsense");
    assert!(others.status.success(), "another process's section");
}

#[test]
fn what_kubernetes_sets_is_passed_over_and_what_nothing_reads_is_told() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let path = operator.worker_config("w.toml", |text| text);
    let check = ["config", "check", text(&path)];
    let links = [
        ("TETHER_SERVICE_HOST", "10.0.0.1"),
        ("TETHER_SERVICE_PORT", "8080"),
        ("TETHER_SERVICE_PORT_HTTP", "8080"),
        ("TETHER_PORT", "tcp://10.0.0.1:8080"),
        ("TETHER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("TETHER_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TETHER_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("TETHER_GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("TETHER_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        // Of a service `tether-worker--canary`, and of one `tether--edge`.
        ("TETHER_WORKER__CANARY_SERVICE_HOST", "10.0.0.2"),
        ("TETHER_WORKER__CANARY_SERVICE_PORT", "8080"),
        ("TETHER_WORKER__CANARY_PORT", "tcp://10.0.0.2:8080"),
        ("TETHER_WORKER__CANARY_PORT_8080_TCP", "tcp://10.0.0.2:8080"),
        ("TETHER__EDGE_SERVICE_HOST", "10.0.0.3"),
        ("TETHER__EDGE_PORT", "tcp://10.0.0.3:8080"),
        ("TETHER_BOOTSTRAP__A_SERVICE_HOST", "10.0.0.4"),
        ("TETHER_BOOTSTRAP__A_PORT", "tcp://10.0.0.4:49737"),
    ];
    let passed = with(&links, &check);
    assert!(passed.status.success(), "{}", stderr(&passed));
    assert_eq!(stderr(&passed), "", "in silence");
    let told = with(&[("TETHER_HOME", "/srv")], &check);
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(
        stderr(&told).contains("warning: environment variable TETHER_HOME is not read"),
        "{}",
        stderr(&told)
    );

    let log = operator.path("log");
    let mut command = Command::new(support::tether());
    command
        .args(["bootstrap", "--json", "--listen", "127.0.0.1:0"])
        .env("TETHER_HOME", "/srv")
        .envs(links);
    assert_eq!(Process::start(command, &log).stop(), Some(0));
    let log = std::fs::read_to_string(log).expect("its log");
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(warnings[..], [one] if one.contains("TETHER_HOME is not read")),
        "{log}"
    );
}

#[test]
fn the_case_of_a_variables_letters_makes_no_difference() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let path = operator.worker_config("w.toml", |text| text);
    let check = ["config", "check", text(&path)];
    let good = with(&[("tether_worker__slots", "7")], &check);
    let said = String::from_utf8_lossy(&good.stdout);
    assert!(said.contains("slots = 7"), "{said}{}", stderr(&good));
    for (variables, words) in [
        (&[("tether_worker__slotz", "7")][..], "no key `slotz`"),
        (
            &[("tether_worker_slots", "7")],
            "did you mean TETHER_WORKER__SLOTS?",
        ),
        (
            &[("tether_worker__slots", "many")],
            "environment variable tether_worker__slots",
        ),
        (
            &[("tether_worker__slots", "7"), ("TETHER_WORKER__SLOTS", "8")],
            "keep one",
        ),
        // Which blanks are read past, so that the two names must be told apart.
        (
            &[
                ("TETHER_WORKER__SLOTS ", "7"),
                ("TETHER_WORKER__SLOTS", "8"),
            ],
            "\"TETHER_WORKER__SLOTS \"",
        ),
    ] {
        let bad = with(variables, &check);
        assert_eq!(bad.status.code(), Some(CONFIG), "{variables:?}");
        assert!(stderr(&bad).contains(words), "{}", stderr(&bad));
    }
}

#[test]
fn a_process_without_a_file_passes_no_setting_over() {
    let operator = Operator::new();
    let data = operator.path("data");
    let up = ["up", "--data-dir", text(&data)];
    for name in [
        "TETHER_WORKER__SLOTS",
        "TETHER_GATEWAY__LISTEN",
        "TETHER_ORCHESTRATOR__ADMIN",
        "TETHER_NODE__REGION",
        "TETHER_BOOTSTRAP__LISTEN",
        "tether_worker__slots",
    ] {
        let refused = with(&[(name, "1")], &up);
        assert_eq!(refused.status.code(), Some(CONFIG), "{name}");
        for word in [name, "`tether up`", "--workers", "tether worker --config"] {
            assert!(stderr(&refused).contains(word), "{}", stderr(&refused));
        }
    }
    assert!(!data.exists(), "nothing was made");
    let bootstrap = ["bootstrap", "--listen", "127.0.0.1:0"];
    let read = with(&[("TETHER_BOOTSTRAP__BOOTSTRAP", "nonsense")], &bootstrap);
    assert_eq!(read.status.code(), Some(CONFIG));
    assert!(
        stderr(&read).contains("TETHER_BOOTSTRAP__BOOTSTRAP"),
        "{}",
        stderr(&read)
    );
}
