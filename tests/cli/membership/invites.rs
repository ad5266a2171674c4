//! Invites, as the operator makes and lists them.

use super::{NOWHERE, id};
use crate::operator::{FAILURE, Operator, USAGE, fails, stderr, text};
use crate::support::Tether;
use serde_json::Value;

#[test]
fn an_invite_is_a_secret_that_is_listed_without_it() {
    let operator = Operator::new();
    let mesh = operator.path("mesh");
    let output = Tether::output(&[
        "invite",
        "new",
        "--operator",
        text(&mesh),
        "--region",
        "eu",
        "--ttl",
        "2h",
        "--uses",
        "5",
        "--bootstrap",
        NOWHERE,
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let token = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let token = token.trim_end();
    assert!(token.starts_with("tether-join-1-"), "{token}");
    assert!(
        stderr(&output).contains("is a secret"),
        "{}",
        stderr(&output)
    );
    let (_, second) = operator.invite(&["--tier", "trusted"]);
    let register = std::fs::read_to_string(operator.path("mesh/grants.jsonl")).expect("read");
    // The secret is the end of the token.
    assert!(!register.contains(&token[token.len() - 64..]), "{register}");
    let list = Tether::ok(&["invite", "ls", text(&mesh)]);
    assert_eq!(list.lines().count(), 3, "{list}");
    for word in ["eu", "5", "trusted", "90d"] {
        assert!(list.contains(word), "{list}");
    }
    let list: Value =
        serde_json::from_str(&Tether::ok(&["invite", "ls", text(&mesh), "--json"])).expect("JSON");
    assert_eq!(list[1]["serial"], second);
    assert_eq!(list[1]["revoked"], false);
    // It is no grant.
    assert_eq!(Tether::ok(&["grant", "ls", text(&mesh)]).lines().count(), 1);
}

#[test]
fn an_invite_that_cannot_be_is_refused() {
    let operator = Operator::new();
    let mesh = operator.path("mesh");
    let new = |more: &[&str], words: &[&str]| {
        let mut args = vec!["invite", "new", "--operator", text(&mesh), "--region", "eu"];
        args.extend(more);
        fails(&args, USAGE, words);
    };
    new(&[], &["--bootstrap"]);
    let at = ["--bootstrap", NOWHERE];
    let with = |more: &[&'static str]| [&at[..], more].concat();
    new(&with(&["--ttl", "91d"]), &["from 1s to 90d"]);
    new(&with(&["--uses", "0"]), &["--uses"]);
    new(&with(&["--uses", "10001"]), &["--uses"]);
    new(&with(&["--grant-life", "733d"]), &["from 1s to 732d"]);
    new(&["--bootstrap", "[::1]:9"], &["IPv4"]);
    new(&["--bootstrap", "127.0.0.1:0"], &["with a port"]);
    new(&["--bootstrap", NOWHERE].repeat(17), &["at most 16"]);
    let other = id(11);
    let named = ["--bootstrap", NOWHERE, "--recovery", &other];
    new(&named, &["mesh.id names"]);
    let node = operator.path("node");
    Tether::ok(&["keys", "new", text(&node)]);
    fails(
        &[
            "invite",
            "new",
            "--operator",
            text(&node),
            "--region",
            "eu",
            "--bootstrap",
            NOWHERE,
        ],
        FAILURE,
        &["not the key of a mesh's operator"],
    );
    assert!(
        !operator.path("mesh/grants.jsonl").exists(),
        "none was entered"
    );
}

#[test]
fn an_operator_of_a_region_invites_there_alone() {
    let operator = Operator::new();
    std::fs::create_dir(operator.path("eu")).expect("made");
    let issued = operator.issue("eu/op", "operator", &["--region", "eu", "--ttl", "2d"]);
    assert!(issued.status.success(), "{}", stderr(&issued));
    let (key, grant) = (operator.path("eu/op"), operator.path("eu/op.grant"));
    let invite = |more: &[&str]| {
        let mut args = vec!["invite", "new", "--operator", text(&key)];
        args.extend(["--operator-grant", text(&grant), "--bootstrap", NOWHERE]);
        args.extend(more);
        Tether::output(&args)
    };
    let made = invite(&["--region", "eu"]);
    assert!(made.status.success(), "{}", stderr(&made));
    for (more, words) in [
        (&["--region", "us"][..], "another region"),
        (&["--region", "eu", "--ttl", "3d"], "outlives"),
    ] {
        let refused = invite(more);
        assert_eq!(refused.status.code(), Some(FAILURE));
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    // It revokes what it gave, and nobody's key.
    let by = [
        "--operator",
        text(&key),
        "--operator-grant",
        text(&grant),
        "--yes",
    ];
    let out = operator.path("c1");
    let revoke = |what: &[&str]| {
        Tether::output(&[&["revoke"][..], what, &by, &["--out", text(&out)]].concat())
    };
    let refused = revoke(&[&id(7)]);
    assert_eq!(refused.status.code(), Some(FAILURE));
    assert!(
        stderr(&refused).contains("what it gave itself"),
        "{}",
        stderr(&refused)
    );
    assert!(!out.exists());
    let list = std::fs::read_to_string(operator.path("eu/grants.jsonl")).expect("its register");
    let entry: Value = serde_json::from_str(list.lines().next().expect("one")).expect("JSON");
    let done = revoke(&["--serial", &entry["serial"].to_string()]);
    assert!(done.status.success(), "{}", stderr(&done));
}
