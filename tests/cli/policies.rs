//! `tether policy`.

use crate::operator::{CONFIG, fails, text};
use crate::support::Tether;

const POLICY: &str = r#"{"tenants": {"acme": {"models": {"deny": ["big"]}}}}"#;

#[test]
fn a_policy_is_checked_and_tried_before_it_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("policy.json");
    std::fs::write(&file, POLICY).expect("written");
    let path = text(&file);
    assert_eq!(
        Tether::ok(&["policy", "check", path]),
        "the policy is valid"
    );
    let test = |model| ["policy", "test", path, "--tenant", "acme", "--model", model];
    assert!(Tether::ok(&test("tiny")).starts_with("allowed\n"));
    fails(&test("big"), 6, &[]);
    let schema = Tether::ok(&["policy", "schema"]);
    assert!(schema.contains("\"TetherPolicy\""), "{schema}");
    std::fs::write(&file, "{\n\"tenant\": {}}").expect("written");
    fails(
        &["policy", "check", path],
        CONFIG,
        &["line 2", "unknown field `tenant`"],
    );
}
