//! Settings in the environment.

use crate::operator::{CONFIG, Operator, stderr, text};
use crate::support;

#[test]
fn the_environment_overrides_a_file_and_its_mistakes_are_named() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let path = operator.worker_config("w.toml", |text| text);
    let check = |name: &str, value: &str| {
        std::process::Command::new(support::tether())
            .args(["config", "check", text(&path)])
            .env(name, value)
            .output()
            .expect("the binary runs")
    };
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
