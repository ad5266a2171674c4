//! What a person meets on the command line: help, exit codes, private files, clear errors.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::Tether;

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const NOT_READY: i32 = 4;

/// A file's name, what is wrong in it, and words of the error.
type Mistake = (&'static str, fn(String) -> String, &'static [&'static str]);

/// A folder with a mesh, and a node with its grant.
struct Operator {
    dir: tempfile::TempDir,
    mesh: String,
}

impl Operator {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mesh_dir = dir.path().join("mesh");
        let mesh = Tether::ok(&["mesh", "new", text(&mesh_dir)]);
        Self { dir, mesh }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, key: &str, role: &str, more: &[&str]) -> Output {
        let id = Tether::ok(&["keys", "new", text(&self.path(key))]);
        let (operator, out) = (
            self.path("mesh/operator.key"),
            self.path(&format!("{key}.grant")),
        );
        let mut args = vec![
            "grant",
            "issue",
            "--operator",
            text(&operator),
            "--subject",
            &id,
            "--role",
            role,
            "--out",
            text(&out),
        ];
        args.extend(more);
        Tether::output(&args)
    }

    /// A worker's configuration that is right, with changes.
    fn worker_config(&self, name: &str, change: impl Fn(String) -> String) -> PathBuf {
        let path = self.path(name);
        let text = format!(
            "[node]\nkey = \"w\"\ngrant = \"w.grant\"\nmesh = \"{}\"\nregion = \"eu\"\n\
             bootstrap = [\"127.0.0.1:49737\"]\n\n[worker]\nslots = 2\n",
            self.mesh
        );
        std::fs::write(&path, change(text)).expect("written");
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn mode(path: &Path) -> u32 {
    let meta = std::fs::metadata(path).expect("it is there");
    meta.permissions().mode() & 0o777
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let output = Tether::output(args);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    for word in words {
        assert!(
            stderr(&output).contains(word),
            "{word:?} in {}",
            stderr(&output)
        );
    }
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = Tether::ok(&["--help"]);
    for word in [
        "up",
        "bootstrap",
        "gateway",
        "orchestrator",
        "worker",
        "keys",
        "mesh",
        "grant",
        "artifact",
        "tenant",
        "probe",
        "fleet",
        "chat",
        "completions",
        "config",
        "Exit codes:",
        "Examples:",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(!help.contains("engine  "), "internal commands stay hidden");
    assert!(
        help.starts_with("A mesh of machines that serves language models"),
        "what it is to its users: {help}"
    );
    fails(&["no-such-command"], USAGE, &["no-such-command"]);
    fails(&["up", "--workers", "0"], USAGE, &["--workers"]);
}

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
    assert_eq!(serials, [1, 2]);
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
fn what_cannot_be_meant_is_refused_as_wrong_usage() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let up = |option: &'static str, value: &'static str| {
        let data = text(&data).to_owned();
        move || {
            fails(
                &["up", "--data-dir", &data, option, value],
                USAGE,
                &[option],
            )
        }
    };
    up("--admin", "0.0.0.0:0")();
    up("--otlp-endpoint", "not a url")();
    up("--log-level", "foo=bar=baz")();
    assert!(!data.exists(), "nothing was made");
    fails(&["bootstrap"], USAGE, &["give --config or --listen"]);
    fails(&["probe", "foo"], USAGE, &["HOST:PORT"]);
    fails(&["probe", "ftp://foo"], USAGE, &["http://"]);
    fails(
        &["chat", "--gateway", "foo", "--api-key", "tk-x"],
        USAGE,
        &["--gateway", "http://"],
    );
}

#[test]
fn a_model_that_was_never_packed_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let data = dir.path().join("data");
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("made");
    for (model, words) in [
        (&unpacked, "holds no tether.manifest"),
        (&dir.path().join("none"), "is no directory"),
    ] {
        fails(
            &["up", "--data-dir", text(&data), "--model", text(model)],
            CONFIG,
            &[text(model), words, "tether artifact pack"],
        );
    }
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_check_refuses_the_files_that_a_start_would_refuse() {
    let operator = Operator::new();
    operator.issue("o", "orchestrator", &[]);
    let publisher = Tether::ok(&["keys", "new", text(&operator.path("publisher"))]);
    let stranger = Tether::ok(&["keys", "new", text(&operator.path("stranger"))]);
    let model = operator.path("model");
    std::fs::create_dir(&model).expect("made");
    let files = std::fs::read_dir(support::repository().join("crates/tiny-model/model"));
    for entry in files.expect("the committed model") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    Tether::ok(&[
        "artifact",
        "pack",
        text(&model),
        "--model",
        "tiny@1.0",
        "--key",
        text(&operator.path("publisher")),
    ]);
    let tenants =
        |text: &str| std::fs::write(operator.path("tenants.toml"), text).expect("written");
    let file = operator.path("o.toml");
    let write = |release: &str, trusted: &str| {
        let text = format!(
            "[node]\nkey = \"o\"\ngrant = \"o.grant\"\nmesh = \"{}\"\nregion = \"eu\"\n\
             bootstrap = [\"127.0.0.1:49737\"]\n\n[orchestrator]\ntenants = \"tenants.toml\"\n\
             releases = [\"{release}\"]\ntrusted_publishers = [\"{trusted}\"]\n\
             admin = \"127.0.0.1:0\"\n",
            operator.mesh
        );
        std::fs::write(&file, text).expect("written");
    };
    let refused = |words: &[&str]| {
        fails(&["config", "check", text(&file)], CONFIG, words);
        fails(&["orchestrator", "--config", text(&file)], CONFIG, words);
    };
    write("model", &publisher);
    refused(&["orchestrator.tenants", "tenants.toml"]);
    tenants("[[tenant]]\nname = \"x\"\n");
    refused(&["orchestrator.tenants", "line"]);
    tenants("");
    Tether::ok(&["config", "check", text(&file)]);
    write("nowhere", &publisher);
    refused(&["orchestrator.releases", "nowhere"]);
    write("model", &stranger);
    refused(&["orchestrator.releases", &publisher]);

    // A worker serves what else it has, so that a model that is not there is told and no more.
    operator.issue("w", "worker", &["--region", "eu"]);
    let worker = operator.worker_config("w.toml", |text| {
        format!(
            "{text}trusted_publishers = [\"{publisher}\"]\n[[worker.models]]\npath = \"gone\"\n"
        )
    });
    let output = Tether::output(&["config", "check", text(&worker)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("warning") && said.contains("gone holds no tether.manifest"),
        "{said}"
    );
}

#[test]
fn a_configuration_is_checked_before_anything_starts() {
    let operator = Operator::new();
    operator.issue("w", "worker", &["--region", "eu"]);
    let good = operator.worker_config("good.toml", |text| text);
    let effective = Tether::ok(&["config", "check", text(&good)]);
    assert!(effective.contains("slots = 2"), "{effective}");
    let secret = std::fs::read_to_string(operator.path("w")).expect("read");
    let secret = secret.lines().last().expect("a seed");
    assert!(!effective.contains(secret), "secrets are only paths");

    let cases: [Mistake; 8] = [
        (
            "typo.toml",
            |t| t.replace("slots", "slotz"),
            &["typo.toml", "unknown key `worker.slotz`", "slots"],
        ),
        (
            "section.toml",
            |t| t + "[workr]\nx = 1\n",
            &["section.toml", "unknown key `workr`"],
        ),
        (
            "type.toml",
            |t| t.replace("slots = 2", "slots = \"many\""),
            &["type.toml", "worker.slots"],
        ),
        (
            "key.toml",
            |t| t.replace("\"w\"", "\"nobody\""),
            &["node.key", "nobody"],
        ),
        (
            "region.toml",
            |t| t.replace("\"eu\"", "\"us\""),
            &["node.grant", "region eu"],
        ),
        (
            "nogrant.toml",
            |t| t.replace("grant = \"w.grant\"\n", ""),
            &["node.grant", "tether grant issue"],
        ),
        ("broken.toml", |t| t.replace('[', "("), &["broken.toml"]),
        (
            "collector.toml",
            |t| t + "[telemetry]\notlp_endpoint = \"not a url\"\n",
            &["telemetry.otlp_endpoint", "not a url"],
        ),
    ];
    for (name, change, words) in cases {
        let path = operator.worker_config(name, change);
        fails(&["config", "check", text(&path)], CONFIG, words);
        // The role itself says the same, and does not start.
        fails(&["worker", "--config", text(&path)], CONFIG, words);
    }
    let none = Tether::output(&["config", "check", text(&operator.path("none.toml"))]);
    assert_eq!(none.status.code(), Some(CONFIG));
    let said = stderr(&none);
    assert!(said.contains("none.toml"), "{said}");
    assert_eq!(said.matches("os error 2").count(), 1, "told once: {said}");
    let nobody = operator.worker_config("nobody.toml", |text| {
        text.replace("[worker]\nslots = 2\n", "")
    });
    fails(
        &["config", "check", text(&nobody)],
        CONFIG,
        &["no role is configured", "[orchestrator]"],
    );
}

#[test]
fn another_meshs_grant_is_refused_by_name() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    ours.issue("w", "worker", &["--region", "eu"]);
    let path = ours.worker_config("other.toml", |text| text.replace(&ours.mesh, &theirs.mesh));
    fails(
        &["config", "check", text(&path)],
        CONFIG,
        &["node.grant", "does not hold in mesh", &theirs.mesh],
    );
}

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
fn the_help_says_that_grants_end_by_time_alone() {
    let help = Tether::ok(&["grant", "issue", "--help"]);
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("no way yet to revoke"), "{help}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Tether::ok(&["completions", shell]);
        assert!(script.contains("orchestrator"), "{shell}");
    }
}

#[test]
fn a_probe_tells_by_its_exit_code_whether_something_answers() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut command = std::process::Command::new(support::tether());
    command.args([
        "bootstrap",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    let nodes = support::Process::start(command, &dir.path().join("log"));
    let address = nodes.ready["bootstrap"][0].as_str().expect("an address");
    let said = Tether::ok(&["probe", address]);
    assert!(said.contains("answers as a DHT node"), "{said}");
    // A port that was free a moment ago: nothing answers there.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let silent = socket.local_addr().expect("bound").to_string();
    fails(
        &["probe", &silent, "--timeout-ms", "300"],
        NOT_READY,
        &[&silent],
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    fails(&["probe", &url], NOT_READY, &[&url]);
    assert_eq!(nodes.stop(), Some(0));
}

#[test]
fn without_a_mesh_the_commands_that_need_one_say_how_to_start_it() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for command in ["fleet", "chat"] {
        fails(
            &[command, "--data-dir", text(dir.path())],
            NOT_READY,
            &["tether up"],
        );
    }
}

#[test]
fn chat_asks_for_the_likeliest_answer_unless_told_otherwise() {
    for (more, temperature) in [(&[][..], 0.0), (&["--temperature", "0.5"][..], 0.5)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let gateway = std::thread::spawn(move || answer_once(&listener));
        let mut args = vec![
            "chat",
            "--gateway",
            &url,
            "--api-key",
            "tk-x",
            "--model",
            "m",
        ];
        args.extend(more);
        args.push("Hello");
        Tether::ok(&args);
        let body = gateway.join().expect("asked");
        assert_eq!(body["temperature"], temperature, "{body}");
    }
}

/// Takes one request, answers with an empty stream, and returns the request's body.
fn answer_once(listener: &std::net::TcpListener) -> serde_json::Value {
    use std::io::{BufRead, BufReader, Read, Write};
    let (stream, _) = listener.accept().expect("a connection");
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let done = "data: [DONE]\n\n";
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{done}",
        done.len()
    )
    .expect("answered");
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn an_artifact_is_packed_verified_signed_again_and_refused_when_changed() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = dir.path().join("model");
    std::fs::create_dir(&model).expect("made");
    for entry in std::fs::read_dir(support::repository().join("crates/tiny-model/model"))
        .expect("the committed model")
    {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    let keys = ["one", "two"].map(|name| {
        let path = dir.path().join(name);
        let id = Tether::ok(&["keys", "new", text(&path)]);
        (path, id)
    });
    let [(one, one_id), (two, two_id)] = &keys;
    let packed = Tether::ok(&[
        "artifact",
        "pack",
        text(&model),
        "--model",
        "tiny@1.0",
        "--key",
        text(one),
        "--json",
    ]);
    let packed: serde_json::Value = serde_json::from_str(&packed).expect("JSON");
    assert_eq!(packed["model"], "tiny@1.0");
    assert_eq!(packed["publisher"], **one_id);
    let digest = packed["digest"].as_str().expect("a digest");
    let shown = Tether::ok(&["artifact", "verify", text(&model), "--publisher", one_id]);
    assert!(shown.contains("format     gguf"), "{shown}");
    let verify = ["artifact", "verify", text(&model), "--publisher"];
    let with = |more: &[&'static str], id: &str| {
        let mut args: Vec<String> = verify.iter().map(ToString::to_string).collect();
        args.push(id.to_owned());
        args.extend(more.iter().map(ToString::to_string));
        Tether::output(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(with(&[], one_id).status.success());
    let stranger = with(&["--json"], two_id);
    assert_eq!(stranger.status.code(), Some(FAILURE));
    let error: serde_json::Value = serde_json::from_slice(&stranger.stdout).expect("JSON");
    assert_eq!(error["error"]["code"], "untrusted-publisher");
    Tether::ok(&["artifact", "sign", text(&model), "--key", text(two)]);
    assert!(with(&[], two_id).status.success());
    assert!(
        !with(&[], one_id).status.success(),
        "the first signature is gone, and with it the digest {digest}"
    );
    let weights = model.join("tokenizer.json");
    let mut bytes = std::fs::read(&weights).expect("read");
    bytes[100] ^= 1;
    std::fs::write(&weights, bytes).expect("written");
    let corrupt = with(&["--json"], two_id);
    let error: serde_json::Value = serde_json::from_slice(&corrupt.stdout).expect("JSON");
    assert_eq!(error["error"]["code"], "corrupt-file");
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
