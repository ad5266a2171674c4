//! Help, usage, completions, `probe` and `chat`.

use crate::operator::{CONFIG, FAILURE, NOT_READY, Operator, USAGE, fails, stderr, text};
use crate::support::{self, Tether};

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
        "invite",
        "revoke",
        "control",
        "artifact",
        "tenant",
        "policy",
        "probe",
        "fleet",
        "explain",
        "topics",
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
    let data_dir = text(&data);
    let processes = [
        "up",
        "--data-dir",
        data_dir,
        "--slots",
        "2",
        "--replicas",
        "6",
    ];
    let names = ["`worker.engine.replicas` is 6", "`worker.slots` is 2"];
    fails(&processes, CONFIG, &names);
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
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Tether::ok(&["completions", shell]);
        assert!(script.contains("orchestrator"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_enough_ends_a_command_well_and_a_server_not_in_silence() {
    let run = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        std::process::Command::new(support::tether())
            .args(args)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("the binary runs")
    };
    let operator = Operator::new();
    let mesh = operator.path("mesh");
    for args in [&["completions", "bash"][..], &["grant", "ls", text(&mesh)]] {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{args:?}");
    }
    let server = run(&["bootstrap", "--json", "--listen", "127.0.0.1:0"]);
    assert_eq!(server.status.code(), Some(FAILURE));
    let said = stderr(&server);
    assert!(
        said.contains("nobody hears that this process is ready"),
        "{said}"
    );
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
