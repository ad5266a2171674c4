//! Keys: the one for recovery, and those that are replaced.

use crate::operator::{CONFIG, FAILURE, Operator, USAGE, fails, mode, stderr, text};
use crate::support::Tether;
use serde_json::Value;

#[test]
fn a_mesh_has_a_recovery_key_that_is_to_be_moved_away() {
    let operator = Operator::new();
    let key = operator.path("mesh/recovery.key");
    assert_eq!(mode(&key), 0o600);
    let heading = std::fs::read_to_string(&key).expect("read");
    for words in ["Recovery key", &operator.mesh, "offline"] {
        assert!(heading.contains(words), "{heading}");
    }
    let recovery = operator.recovery();
    let mesh_id = std::fs::read_to_string(operator.path("mesh/mesh.id")).expect("read");
    let lines: Vec<&str> = mesh_id.lines().collect();
    assert_eq!(lines, [&operator.mesh, &format!("recovery {recovery}")]);
    let said = Tether::output(&["mesh", "new", text(&operator.path("other"))]);
    for words in ["recovery.key", "`recovery`", "offline"] {
        assert!(stderr(&said).contains(words), "{}", stderr(&said));
    }
    let made = Tether::ok(&[
        "mesh",
        "new",
        text(&operator.path("alone")),
        "--no-recovery",
        "--json",
    ]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert!(
        made["mesh"].is_string() && made["recovery"].is_null(),
        "{made}"
    );
    assert!(!operator.path("alone/recovery.key").exists());

    // Moved away, it grants as the first one does, and nodes take it that know it.
    std::fs::create_dir(operator.path("stick")).expect("made");
    let stick = operator.path("stick/r.key");
    std::fs::rename(&key, &stick).expect("moved");
    let worker = Tether::ok(&["keys", "new", text(&operator.path("w"))]);
    let out = operator.path("w.grant");
    Tether::ok(&[
        "grant",
        "issue",
        "--operator",
        text(&stick),
        "--subject",
        &worker,
        "--role",
        "worker",
        "--out",
        text(&out),
    ]);
    let with = operator.worker_config("with.toml", |t| {
        t.replace("region", &format!("recovery = \"{recovery}\"\nregion"))
    });
    Tether::ok(&["config", "check", text(&with)]);
    let without = operator.worker_config("without.toml", |t| t);
    fails(
        &["config", "check", text(&without)],
        CONFIG,
        &["node.grant", "not the operator of this mesh"],
    );
    let same = operator.worker_config("same.toml", |t| {
        t.replace(
            "region",
            &format!("recovery = \"{}\"\nregion", operator.mesh),
        )
    });
    fails(
        &["config", "check", text(&same)],
        CONFIG,
        &["node.recovery", "second one"],
    );
    let shown = Tether::ok(&[
        "grant",
        "show",
        text(&out),
        "--mesh",
        &operator.mesh,
        "--recovery",
        &recovery,
    ]);
    assert!(shown.contains(&recovery), "{shown}");
    fails(&["grant", "show", text(&out)], FAILURE, &["--recovery"]);
}

#[test]
fn a_key_is_replaced_with_its_grant() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let config = operator.worker_config("w.toml", |t| t);
    let old = Tether::ok(&["keys", "show", text(&operator.path("w"))]);
    let output = Tether::output(&["keys", "rotate", "--config", text(&config)]);
    assert!(output.status.success(), "{}", stderr(&output));
    for words in [&old, "kept nowhere", "Restart", "3 more times"] {
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let new = String::from_utf8(output.stdout).expect("UTF-8");
    let new = new.trim_end();
    assert_ne!(new, old);
    assert_eq!(
        Tether::ok(&["keys", "show", text(&operator.path("w"))]),
        new
    );
    assert_eq!(mode(&operator.path("w")), 0o600);
    Tether::ok(&["config", "check", text(&config)]);
    let shown = Tether::ok(&["grant", "show", text(&operator.path("w.grant"))]);
    for words in [&operator.mesh, new, &old, "passed it on"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    for _ in 0..3 {
        Tether::ok(&["keys", "rotate", "--config", text(&config)]);
    }
    fails(
        &["keys", "rotate", "--config", text(&config)],
        FAILURE,
        &["4 times", "new grant"],
    );
    Tether::ok(&["config", "check", text(&config)]);
}

#[test]
fn a_key_without_a_grant_is_replaced_in_an_open_mesh_alone() {
    let operator = Operator::new();
    let old = Tether::ok(&["keys", "new", text(&operator.path("w"))]);
    let bare = |t: String| t.replace("grant = \"w.grant\"\n", "");
    let closed = operator.worker_config("closed.toml", bare);
    fails(
        &["keys", "rotate", "--config", text(&closed)],
        FAILURE,
        &["no grant", "tether keys new"],
    );
    let open = operator.worker_config("open.toml", |t| {
        bare(t).replace("region", "access = \"open\"\nregion")
    });
    assert_ne!(
        Tether::ok(&["keys", "rotate", "--config", text(&open)]),
        old
    );
    Tether::ok(&["config", "check", text(&open)]);
    fails(&["keys", "rotate"], USAGE, &["--data-dir"]);
    fails(
        &[
            "keys",
            "rotate",
            "--data-dir",
            text(&operator.path("nowhere")),
        ],
        FAILURE,
        &["node.grant"],
    );
    // A folder with the two files is enough.
    let dir = operator.path("n");
    std::fs::create_dir(&dir).expect("made");
    operator.issue("n/node.key", "worker", &[]);
    std::fs::rename(dir.join("node.key.grant"), dir.join("node.grant")).expect("moved");
    Tether::ok(&["keys", "rotate", "--data-dir", text(&dir)]);
}
