//! Invites, rotations, revocations: who belongs to a mesh. What needs a mesh that runs is in
//! tests/membership.rs.

use crate::operator::{CONFIG, FAILURE, NOT_READY, Operator, USAGE, fails, mode, stderr, text};
use crate::support::{self, Tether};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";
/// Exit codes of joining.
const MALFORMED: i32 = 10;
const OVER: i32 = 11;
const REVOKED: i32 = 13;
const OTHER_MESH: i32 = 14;

impl Operator {
    /// A token for workers of `eu`, and the serial of its invite.
    fn invite(&self, more: &[&str]) -> (String, u64) {
        let mesh = self.path("mesh");
        let mut args = vec!["invite", "new", "--operator", text(&mesh), "--json"];
        args.extend(["--region", "eu", "--bootstrap", NOWHERE]);
        args.extend(more);
        let made: Value = serde_json::from_str(&Tether::ok(&args)).expect("JSON");
        let token = made["token"].as_str().expect("a token").to_owned();
        (token, made["serial"].as_u64().expect("a serial"))
    }

    fn recovery(&self) -> String {
        Tether::ok(&["keys", "show", text(&self.path("mesh/recovery.key"))])
    }
}

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

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

#[test]
fn each_token_that_lets_nobody_in_is_refused_for_its_own_reason() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("w");
    let join = |token: &str, code: i32, words: &[&str]| {
        fails(
            &["worker", "--join", token, "--data-dir", text(&home)],
            code,
            words,
        );
    };
    for cut in [
        &token[..token.len() - 1],
        &token[..60],
        "tether-join-1-",
        "nonsense",
    ] {
        join(cut, MALFORMED, &["token", "copied whole?"]);
    }
    join(
        &token.replace("join-1", "join-2"),
        MALFORMED,
        &["tether-join-1-"],
    );
    join(&"a".repeat(5_000), MALFORMED, &["token"]);
    assert!(!home.exists(), "nothing was made for it");
    let (over, _) = operator.invite(&["--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    join(&over, OVER, &["the invite", "expired"]);
    let shown = Tether::output(&["worker", "--join", &token[..80], "--data-dir", text(&home)]);
    assert!(
        !stderr(&shown).contains(&token[20..80]),
        "a secret is not repeated"
    );
}

#[test]
fn a_token_is_given_once_and_not_with_a_configuration() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let file = operator.path("token");
    std::fs::write(&file, format!("{token}\n")).expect("written");
    let config = operator.worker_config("w.toml", |t| t);
    let home = operator.path("home");
    for (args, words) in [
        (&["--join", &token, "--join-file", text(&file)][..], "once"),
        (&["--join", &token, "--config", text(&config)], "--data-dir"),
        (
            &["--config", text(&config), "--data-dir", text(&home)],
            "cannot be used with",
        ),
        (&["--data-dir", text(&home), "--model", "x"], "--model"),
        (&[], "--config"),
    ] {
        fails(&[&["worker"][..], args].concat(), USAGE, &[words]);
    }
    fails(
        &[
            "worker",
            "--join-file",
            text(&operator.path("none")),
            "--data-dir",
            text(&home),
        ],
        FAILURE,
        &["cannot read the token"],
    );
    fails(
        &["worker", "--data-dir", text(&home)],
        CONFIG,
        &["worker.toml"],
    );
    assert!(!home.exists());
}

/// Runs a worker that finds no mesh, with a token, until it has made what it makes before.
fn join_nobody(home: &std::path::Path, token: &str, how: &str) {
    let mut command = Command::new(support::tether());
    command.args(["worker", "--data-dir", text(home)]);
    command.env("TETHER_NODE__LISTEN", "127.0.0.1:0");
    command.env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0");
    match how {
        "environment" => drop(command.env("TETHER_JOIN", token)),
        _ => drop(command.args(["--join-file", "-"])),
    }
    let log = home.with_extension("log");
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("it runs");
    if how == "pipe" {
        use std::io::Write;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(token.as_bytes()).expect("written");
    }
    support::eventually("it looks for the mesh", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!log.contains("error:"), "{log}");
        log.contains("joining a mesh")
    });
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn a_worker_that_was_killed_while_it_joined_goes_on_with_the_same_key() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("home");
    join_nobody(&home, &token, "environment");
    let (key, config) = (home.join("node.key"), home.join("worker.toml"));
    assert_eq!((mode(&home), mode(&key)), (0o700, 0o600));
    let id = Tether::ok(&["keys", "show", text(&key)]);
    let written = std::fs::read_to_string(&config).expect("read");
    for words in [
        &format!("mesh = \"{}\"", operator.mesh),
        &format!("recovery = \"{}\"", operator.recovery()),
        "region = \"eu\"",
        NOWHERE,
    ] {
        assert!(written.contains(words), "{words} in {written}");
    }
    assert!(!home.join("node.grant").exists());
    assert!(
        !written.contains(&token[token.len() - 64..]),
        "no secret is kept"
    );
    join_nobody(&home, &token, "pipe");
    assert_eq!(Tether::ok(&["keys", "show", text(&key)]), id);
    // It has not joined, and cannot start as if it had.
    fails(
        &["worker", "--data-dir", text(&home)],
        CONFIG,
        &["node.grant"],
    );
    // Another mesh's token, and one of another region, are not for this folder.
    let other = Operator::new();
    let (theirs, _) = other.invite(&[]);
    let join = ["worker", "--data-dir", text(&home), "--join"];
    fails(
        &[&join[..], &[&theirs]].concat(),
        OTHER_MESH,
        &[&other.mesh, &operator.mesh, "another --data-dir"],
    );
    let us = Tether::ok(&[
        "invite",
        "new",
        "--operator",
        text(&operator.path("mesh")),
        "--region",
        "us",
        "--bootstrap",
        NOWHERE,
    ]);
    fails(
        &[&join[..], &[&us]].concat(),
        FAILURE,
        &["region us", "says eu"],
    );
    let model = ["--model", "x"];
    fails(
        &[&join[..], &[&token], &model].concat(),
        FAILURE,
        &["write models"],
    );
}

#[test]
fn who_finds_no_mesh_is_told_so_and_may_try_again() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("home");
    let output = Command::new(support::tether())
        .args(["worker", "--join", &token, "--data-dir", text(&home)])
        .env("TETHER_NODE__LISTEN", "127.0.0.1:0")
        .env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(NOT_READY), "{}", stderr(&output));
    for words in ["no orchestrator of region eu", "30 s", NOWHERE, "goes on"] {
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
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

#[test]
fn a_revocation_says_where_to_and_that_it_is_final() {
    let operator = Operator::new();
    let mesh = operator.path("mesh");
    let (key, long) = (id(7), "x".repeat(257));
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
