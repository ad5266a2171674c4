//! What is taken back, and how the mesh would hear of it.

use super::{NOWHERE, id};
use crate::operator::{CONFIG, FAILURE, NOT_READY, Operator, USAGE, fails, text};
use crate::support::Tether;
use serde_json::Value;

/// Exit code of joining where it was revoked.
const REVOKED: i32 = 13;

#[test]
fn a_revocation_says_where_to_and_that_it_is_final() {
    let operator = Operator::new();
    let mesh = operator.path("mesh");
    let (key, long) = (id(7), "x".repeat(257));
    let elsewhere = operator.worker_config("elsewhere.toml", |t| t.replace(&operator.mesh, &id(9)));
    let revoke = |more: &[&str], code: i32, words: &[&str]| {
        fails(
            &[&["revoke", "--operator", text(&mesh)][..], more].concat(),
            code,
            words,
        );
    };
    revoke(&[], USAGE, &["KEY"]);
    revoke(&[&key], USAGE, &["--out", "--bootstrap", "--admin"]);
    let out = operator.path("c");
    let to = ["--out", text(&out)];
    let with = |more: &[&str]| -> Vec<String> {
        (to.iter().chain(more))
            .map(|arg| (*arg).to_owned())
            .collect()
    };
    for (more, code, words) in [
        (with(&[&key]), USAGE, &["--yes", "This is final"][..]),
        (
            with(&[&key, "--serial", "4"]),
            USAGE,
            &["cannot be used with"],
        ),
        (
            with(&["--serial", "4", "--keep-issued"]),
            USAGE,
            &["--keep-issued"],
        ),
        (with(&[&key, "--issuer", &key]), USAGE, &["--serial"]),
        (with(&[&key, "--reason", &long]), USAGE, &["256"]),
        (with(&["nonsense"]), USAGE, &["nonsense"]),
        (with(&[&key, "--bootstrap", NOWHERE]), USAGE, &["--region"]),
        (
            with(&[&key, "--admin", "http://127.0.0.1:9"]),
            USAGE,
            &["--admin-token-file"],
        ),
        (
            with(&[&key, "--orchestrator", &id(8)]),
            USAGE,
            &["--bootstrap", "--config"],
        ),
        (
            with(&[&key, "--orchestrator", "nonsense"]),
            USAGE,
            &["nonsense"],
        ),
        (
            with(&[&key, "--config", "x", "--bootstrap", NOWHERE]),
            USAGE,
            &["cannot be used with"],
        ),
        (
            with(&[&key, "--config", "nowhere.toml", "--yes"]),
            CONFIG,
            &["nowhere.toml"],
        ),
        (
            with(&[&key, "--config", text(&elsewhere), "--yes"]),
            FAILURE,
            &["of a node of mesh", &operator.mesh],
        ),
        (with(&[&operator.mesh, "--yes"]), FAILURE, &["other key"]),
        (
            with(&[&operator.recovery(), "--yes"]),
            FAILURE,
            &["recovery key cannot be revoked"],
        ),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        revoke(&more, code, words);
    }
    assert!(!out.exists(), "nothing was signed");
    let list = Tether::ok(&["grant", "ls", text(&mesh)]);
    assert_eq!(list.lines().count(), 1, "nothing was entered: {list}");
}

#[test]
fn the_exit_codes_of_telling_the_mesh_are_in_the_help() {
    for command in [&["revoke"][..], &["control", "send"]] {
        let help = Tether::ok(&[command, &["--help"]].concat());
        for words in [
            "Exit codes:",
            "one that is revoked by it does not count",
            "no orchestrator was reached within 30 s",
            "--orchestrator <ID>",
        ] {
            assert!(help.contains(words), "{words} in {help}");
        }
    }
}

#[test]
fn what_was_revoked_is_shown_and_travels_as_a_file() {
    let operator = Operator::new();
    let serial = operator.issue("w", "worker", &[]);
    let serial = String::from_utf8(serial.stdout).expect("UTF-8");
    operator.issue("g", "gateway", &[]);
    let (token, invite) = operator.invite(&[]);
    let mesh = operator.path("mesh");
    let revoke = |what: &[&str], out: &str| {
        let out = operator.path(out);
        Tether::ok(
            &[
                &[
                    "revoke",
                    "--operator",
                    text(&mesh),
                    "--yes",
                    "--out",
                    text(&out),
                ][..],
                what,
            ]
            .concat(),
        );
    };
    let gateway = Tether::ok(&["keys", "show", text(&operator.path("g"))]);
    revoke(&["--serial", serial.trim()], "1.control");
    revoke(&["--serial", &invite.to_string()], "2.control");
    revoke(&[&gateway, "--reason", "stolen"], "3.control");
    let list = Tether::ok(&["grant", "ls", text(&mesh)]);
    assert_eq!(list.matches("revoked ").count(), 2 + 3, "{list}");
    assert!(list.contains("stolen"), "{list}");
    let list: Value =
        serde_json::from_str(&Tether::ok(&["grant", "ls", text(&mesh), "--json"])).expect("JSON");
    assert!(
        list.as_array()
            .expect("rows")
            .iter()
            .all(|row| row["revoked"] == true),
        "{list}"
    );
    assert!(Tether::ok(&["invite", "ls", text(&mesh)]).contains("revoked"));
    let file = operator.path("3.control");
    let written = std::fs::read_to_string(&file).expect("read");
    assert!(
        written.starts_with("# key ") && written.contains(&gateway),
        "{written}"
    );
    fails(
        &[
            "revoke",
            &gateway,
            "--operator",
            text(&mesh),
            "--yes",
            "--out",
            text(&file),
        ],
        FAILURE,
        &["exists already"],
    );
    let send = |more: &[&str], code: i32, words: &[&str]| {
        fails(
            &[&["control", "send", text(&file)][..], more].concat(),
            code,
            words,
        );
    };
    send(&[], USAGE, &["say where to"]);
    send(
        &["--bootstrap", NOWHERE, "--region", "eu"],
        USAGE,
        &["--operator"],
    );
    let token_file = operator.path("admin.token");
    std::fs::write(&token_file, "x").expect("written");
    let admin = [
        "--admin",
        "http://127.0.0.1:9",
        "--admin-token-file",
        text(&token_file),
    ];
    send(&admin, NOT_READY, &["nobody took it", "does not answer"]);
    fails(
        &[
            &["control", "send", text(&operator.path("w.grant"))][..],
            &admin,
        ]
        .concat(),
        FAILURE,
        &["not a control message"],
    );
    drop(token);
}

#[test]
fn a_node_that_knows_that_it_was_revoked_does_not_start() {
    // What it was told is in its data folder, as `tether keys rotate` and a start read it.
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let id = Tether::ok(&["keys", "show", text(&operator.path("w"))]);
    let out = operator.path("c");
    Tether::ok(&[
        "revoke",
        &id,
        "--operator",
        text(&operator.path("mesh")),
        "--yes",
        "--out",
        text(&out),
    ]);
    let text_of = std::fs::read_to_string(&out).expect("read");
    let digits = text_of.lines().last().expect("hex");
    let data = operator.path("data");
    std::fs::create_dir(&data).expect("made");
    // A CBOR list of one byte string.
    let bytes: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    let head = [0x81, 0x59, length[0], length[1]];
    std::fs::write(data.join("membership.cbor"), [&head[..], &bytes].concat()).expect("written");
    let config = operator.worker_config("w.toml", |t| t);
    fails(
        &["worker", "--config", text(&config)],
        FAILURE,
        &["does not belong to the mesh any more", "was revoked"],
    );
    fails(
        &["keys", "rotate", "--config", text(&config)],
        FAILURE,
        &["was revoked"],
    );
    std::fs::write(data.join("membership.cbor"), "nonsense").expect("written");
    fails(
        &["worker", "--config", text(&config)],
        FAILURE,
        &["membership.cbor", "damaged"],
    );
    // A worker that joins is told the same by its own folder.
    let (token, _) = operator.invite(&[]);
    let home = operator.path("home");
    std::fs::create_dir_all(home.join("data")).expect("made");
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("closed");
    std::fs::copy(operator.path("w"), home.join("node.key")).expect("copied");
    std::fs::write(
        home.join("data/membership.cbor"),
        [&head[..], &bytes].concat(),
    )
    .expect("written");
    fails(
        &["worker", "--join", &token, "--data-dir", text(&home)],
        REVOKED,
        &["was revoked", "another --data-dir"],
    );
}
