//! Keys, meshes, grants, tenants: who may do what.

use crate::operator::{FAILURE, Operator, USAGE, fails, mode, stderr, text};
use crate::support::Tether;
use std::os::unix::fs::PermissionsExt;

#[test]
fn keys_are_private_never_shown_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let key = dir.path().join("node.key");
    let id = Tether::ok(&["keys", "new", text(&key)]);
    assert_eq!(id.len(), 64);
    assert_eq!(mode(&key), 0o600);
    assert_eq!(Tether::ok(&["keys", "show", text(&key)]), id);
    fails(
        &["keys", "new", text(&key)],
        FAILURE,
        &["exists already", text(&key)],
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
    fails(&["keys", "show", text(&key)], FAILURE, &["chmod 600"]);
}

#[test]
fn an_operator_makes_a_mesh_and_gives_roles() {
    let operator = Operator::new();
    assert_eq!(mode(&operator.path("mesh")), 0o700);
    assert_eq!(mode(&operator.path("mesh/operator.key")), 0o600);
    let first = operator.issue("w", "worker", &["--region", "eu", "--tier", "trusted"]);
    assert!(first.status.success(), "{}", stderr(&first));
    let second = operator.issue("g", "gateway", &["--ttl", "1h"]);
    let serials = [first, second].map(|output| {
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.trim().parse::<u64>().expect("a serial")
    });
    assert_ne!(serials[0], serials[1]);
    let list = Tether::ok(&["grant", "ls", text(&operator.path("mesh")), "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    for (entry, serial) in list.as_array().expect("entries").iter().zip(serials) {
        assert_eq!(entry["serial"], serial);
        assert!(serial < 1 << 53, "exact in every reader of JSON: {serial}");
    }
    let shown = Tether::ok(&["grant", "show", text(&operator.path("w.grant"))]);
    for word in [operator.mesh.as_str(), "worker", "eu", "trusted", "holds"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let list = Tether::ok(&["grant", "ls", text(&operator.path("mesh"))]);
    assert_eq!(list.lines().count(), 3, "{list}");
    let bad = operator.issue("x", "king", &[]);
    assert_eq!(bad.status.code(), Some(USAGE));
    let endless = operator.issue("y", "worker", &["--ttl", "9999d"]);
    assert_eq!(endless.status.code(), Some(USAGE));
    assert!(
        stderr(&endless).contains("from 1s to 732d (two years)"),
        "{}",
        stderr(&endless)
    );
}

#[test]
fn a_grant_is_not_overwritten_and_not_issued_by_any_key() {
    let operator = Operator::new();
    assert!(operator.issue("w", "worker", &[]).status.success());
    let grant = std::fs::read(operator.path("w.grant")).expect("read");
    let id = Tether::ok(&["keys", "show", text(&operator.path("w"))]);
    let issue = |key: &str, out: &str, code: i32, words: &[&str]| {
        fails(
            &[
                "grant",
                "issue",
                "--operator",
                text(&operator.path(key)),
                "--subject",
                &id,
                "--role",
                "worker",
                "--out",
                text(&operator.path(out)),
            ],
            code,
            words,
        );
    };
    issue(
        "mesh/operator.key",
        "w.grant",
        FAILURE,
        &["w.grant exists already"],
    );
    assert_eq!(
        std::fs::read(operator.path("w.grant")).expect("read"),
        grant
    );
    let list = Tether::ok(&["grant", "ls", text(&operator.path("mesh"))]);
    assert_eq!(list.lines().count(), 2, "no serial was given: {list}");
    // A node's own key, which signs as well as any.
    issue(
        "w",
        "x.grant",
        FAILURE,
        &["not the key of a mesh's operator", "--operator-grant"],
    );
    assert!(!operator.path("x.grant").exists());
    assert!(!operator.path("grants.jsonl").exists());
}

#[test]
fn an_operators_key_that_is_kept_elsewhere_gives_roles_in_its_mesh_and_no_other() {
    let (operator, other) = (Operator::new(), Operator::new());
    std::fs::create_dir(operator.path("safe")).expect("made");
    let key = operator.path("safe/offline.key");
    std::fs::copy(operator.path("mesh/operator.key"), &key).expect("copied");
    let id = Tether::ok(&["keys", "new", text(&operator.path("w"))]);
    let issue = |out: &str, more: &[&str]| {
        let out = operator.path(out);
        let mut args = vec!["grant", "issue", "--operator", text(&key), "--subject", &id];
        args.extend(["--role", "worker", "--out", text(&out)]);
        args.extend(more);
        Tether::output(&args)
    };
    let first = issue("w.grant", &[]);
    assert!(first.status.success(), "{}", stderr(&first));
    let named = issue("w2.grant", &["--mesh", &operator.mesh]);
    assert!(named.status.success(), "{}", stderr(&named));
    let config = operator.worker_config("w.toml", |text| text);
    Tether::ok(&["config", "check", text(&config)]);
    let contradicted = issue("w3.grant", &["--mesh", &other.mesh]);
    assert_eq!(contradicted.status.code(), Some(FAILURE));
    for word in ["--mesh", operator.mesh.as_str(), other.mesh.as_str()] {
        assert!(
            stderr(&contradicted).contains(word),
            "{}",
            stderr(&contradicted)
        );
    }
    assert!(!operator.path("w3.grant").exists());
    // The copy's register is another, and what it gives is told from what the mesh's folder gave.
    let here = operator.issue("x", "worker", &[]);
    let serials = [first, named, here].map(|output| output.stdout);
    assert!(serials[0] != serials[1] && serials[0] != serials[2] && serials[1] != serials[2]);
    // A link is no copy: its grants are in the register of the mesh's folder.
    let link = operator.path("link.key");
    std::os::unix::fs::symlink(operator.path("mesh/operator.key"), &link).expect("linked");
    let out = operator.path("linked.grant");
    let args = [
        "grant",
        "issue",
        "--operator",
        text(&link),
        "--subject",
        &id,
    ];
    let serial = Tether::ok(&[&args[..], &["--role", "worker", "--out", text(&out)]].concat());
    let list = Tether::ok(&["grant", "ls", text(&operator.path("mesh"))]);
    assert!(
        list.contains(&serial) && list.lines().count() == 3,
        "{list}"
    );
    assert!(!operator.path("grants.jsonl").exists());
}

#[test]
fn a_mesh_that_was_cut_off_while_it_was_made_is_finished() {
    let operator = Operator::new();
    let (mesh, file) = (operator.path("mesh"), operator.path("mesh/mesh.id"));
    std::fs::remove_file(&file).expect("never written");
    assert_eq!(Tether::ok(&["mesh", "new", text(&mesh)]), operator.mesh);
    let written = std::fs::read_to_string(&file).expect("written");
    assert_eq!(written.lines().next(), Some(operator.mesh.as_str()));
    assert!(
        written.contains("recovery "),
        "also what is still beside it: {written}"
    );
    fails(
        &["mesh", "new", text(&mesh)],
        FAILURE,
        &["operator.key exists already"],
    );
    // What cannot be read is not missing. A folder in its place cannot be, by root neither.
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("made");
    let issued = operator.issue("w", "worker", &[]);
    assert_eq!(issued.status.code(), Some(FAILURE));
    let said = stderr(&issued);
    assert!(
        said.contains("cannot read") && said.contains("mesh.id"),
        "{said}"
    );
}

#[test]
fn a_mesh_that_lost_its_key_is_not_silently_another_one() {
    let operator = Operator::new();
    let data = operator.path("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::rename(operator.path("mesh"), data.join("mesh")).expect("moved");
    std::fs::remove_file(data.join("mesh/operator.key")).expect("lost");
    let up = ["up", "--gateway", "127.0.0.1:0", "--data-dir", text(&data)];
    fails(
        &up,
        FAILURE,
        &["operator.key is missing", "mesh.id", "Restore"],
    );
    let mesh = data.join("mesh");
    fails(
        &["mesh", "new", text(&mesh)],
        FAILURE,
        &["operator.key is missing"],
    );
    assert!(!mesh.join("operator.key").exists());
}

#[test]
fn the_help_says_how_grants_end() {
    let help = Tether::ok(&["grant", "issue", "--help"]);
    let words: Vec<&str> = help.split_whitespace().collect();
    let words = words.join(" ");
    assert!(words.contains("ends with its time"), "{help}");
    assert!(words.contains("tether revoke --serial"), "{help}");
}

#[test]
fn a_tenants_key_is_shown_once_and_only_its_hash_is_kept() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("tenants.toml");
    let key = Tether::ok(&["tenant", "new", "--file", text(&file), "--id", "acme"]);
    assert!(key.starts_with("tk-") && key.len() == 67, "{key}");
    assert_eq!(mode(&file), 0o600);
    let kept = std::fs::read_to_string(&file).expect("read");
    assert!(kept.contains("acme") && !kept.contains(&key[3..]), "{kept}");
}
