//! Who may come, by `access` and the list of keys.

use super::id;
use crate::operator::{CONFIG, Operator, fails, stderr, text};
use crate::support::{self, Tether};
use std::process::Command;

#[test]
fn who_may_come_is_checked_before_anything_starts() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let allow = |text: &str| std::fs::write(operator.path("allow"), text).expect("written");
    let config = |name: &str, lines: &str| {
        operator.worker_config(name, |t| t.replace("region", &format!("{lines}\nregion")))
    };
    let refused = |name: &str, lines: &str, words: &[&str]| {
        let path = config(name, lines);
        fails(&["config", "check", text(&path)], CONFIG, words);
        fails(&["worker", "--config", text(&path)], CONFIG, words);
    };
    let good =
        |name: &str, lines: &str| Tether::ok(&["config", "check", text(&config(name, lines))]);
    refused(
        "1",
        "access = \"private\"",
        &["node.access", "is called `invite` now"],
    );
    refused("2", "access = \"closed\"", &["node.access", "`allow-list`"]);
    refused(
        "3",
        "access = \"allow-list\"",
        &["node.allow", "is missing", "one per line"],
    );
    allow(&id(1));
    refused(
        "4",
        "allow = \"allow\"",
        &["node.allow", "not `allow-list`"],
    );
    let listed = "access = \"allow-list\"\nallow = \"allow\"";
    let effective = good("5", listed);
    assert!(effective.contains("access = \"allow-list\""), "{effective}");
    allow(&format!("# us\n{}\n{}\nnonsense\n", id(1), id(1)));
    refused("6", listed, &["node.allow", "line 4"]);
    allow("# nobody\n");
    refused("7", listed, &["node.allow", "names no key"]);
    std::fs::remove_file(operator.path("allow")).expect("removed");
    refused("8", listed, &["node.allow", "cannot be read"]);
    assert!(good("9", "access = \"invite\"").contains("access = \"invite\""));
    let checked = Command::new(support::tether())
        .args(["config", "check", text(&config("10", ""))])
        .env("TETHER_NODE__ACCESS", "open")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        said.contains("access = \"open\""),
        "{said}{}",
        stderr(&checked)
    );
}
