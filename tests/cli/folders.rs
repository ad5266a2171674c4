//! Data folders that others may write to.

use crate::operator::{FAILURE, Operator, fails, stderr, text};
use crate::support::Tether;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_folder_that_others_write_to_is_refused_and_left_as_it_is() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    // As `/tmp` is, which the whole machine needs.
    let shared = operator.path("shared");
    std::fs::create_dir(&shared).expect("made");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).expect("opened");
    let words = ["others may write", "1777", "a new folder inside it"];
    let up = [
        "up",
        "--gateway",
        "127.0.0.1:0",
        "--data-dir",
        text(&shared),
    ];
    fails(&up, FAILURE, &words);
    let worker = operator.worker_config("shared.toml", |text| {
        text.replace("\n\n[worker]", "\ndata_dir = \"shared\"\n\n[worker]")
    });
    fails(&["worker", "--config", text(&worker)], FAILURE, &words);
    fails(&["mesh", "new", text(&shared)], FAILURE, &words);
    let meta = std::fs::metadata(&shared).expect("it is there");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o1777);
    let left = std::fs::read_dir(&shared).expect("read").count();
    assert_eq!(left, 0, "nothing was put into it");
}

#[test]
fn a_folder_that_only_a_group_writes_to_is_used_or_the_way_out_is_named() {
    let operator = Operator::new();
    let dir = operator.path("group");
    std::fs::create_dir(&dir).expect("made");
    let set_mode = |mode| {
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    // Which of the two depends on who runs the tests: what decides has tests of its own.
    set_mode(0o775);
    let made = Tether::output(&["mesh", "new", text(&dir)]);
    if !made.status.success() {
        let said = stderr(&made);
        assert!(
            said.contains("0775") && said.contains("chmod g-w"),
            "{said}"
        );
        set_mode(0o755);
        Tether::ok(&["mesh", "new", text(&dir)]);
    }
}
