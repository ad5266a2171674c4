//! The same with llama.cpp's own server and the small model of this repository. (WRK-4)
//!
//! The server is built from its published package by `ops/ci/setup`; where it was not, these are
//! skipped with a line that says so, and `TETHER_TEST_REQUIRE=all` makes that a failure.

use super::start_spec;
use crate::fixture::{patiently, sampling};
use crate::supervisor::{down, read, ready};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tether_telemetry::metrics::Registry;
use tether_tiny_model::GGUF_FILE;
use tether_wire::infer::{
    Finish, Format, Input, Message, Output, Sampling, Speaker, Tool, ToolChoice,
};
use tether_wire::rpc::Code;
use tether_worker::config::{ServerConfig, ServerKind};
use tether_worker::engine::protocol::Task;
use tether_worker::engine::{Answer, Engine};

fn binary() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/ci/environment");
    let output = Command::new("bash")
        .arg(script)
        .args(["--ready", "llama"])
        .stdin(Stdio::null())
        .output();
    let folder = output.ok().filter(|output| output.status.success());
    let folder = folder.and_then(|output| String::from_utf8(output.stdout).ok());
    let binary = folder.map(|folder| PathBuf::from(folder.trim()).join("bin/llama-server"));
    if binary.is_none() {
        let required = std::env::var("TETHER_TEST_REQUIRE").as_deref() == Ok("all");
        let missing = "llama-server is missing: ops/ci/environment llama builds it";
        assert!(!required, "required by TETHER_TEST_REQUIRE=all: {missing}");
        let test = std::thread::current();
        let name = test.name().unwrap_or("test");
        let _ = writeln!(std::io::stderr(), "skipped {name}: {missing}");
    }
    binary
}

/// A server, until it is dropped.
struct Llama {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Llama {
    fn start(binary: &Path) -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        // Nobody else is given it at once.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let model = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crates/tiny-model/model")
            .join(GGUF_FILE);
        let log = File::create(folder.path().join("log")).expect("a file");
        let child = Command::new(binary)
            .arg("--model")
            .arg(model)
            .args(["--alias", "tiny", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .args(["--parallel", "2", "--ctx-size", "8192", "--threads", "1"])
            .args(["--metrics", "--slots"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        Self {
            child,
            port,
            folder,
        }
    }

    fn engine(&self) -> Engine {
        let server = ServerConfig {
            url: format!("http://127.0.0.1:{}/v1", self.port),
            kind: ServerKind::LlamaCpp,
            model: "tiny".to_owned(),
            artifact: "artifact".into(),
            digest: None,
            api_key_file: None,
            concurrency: 2,
            probe_interval_ms: 100,
        };
        start_spec(server, &Registry::new())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chat(text: &str) -> Task {
    let message = Message::new(Speaker::User, text);
    let greedy = Sampling {
        temperature: 0.0,
        max_tokens: Some(24),
        ..sampling()
    };
    Task::new(Input::Chat(vec![message]), greedy)
}

fn give(engine: &Engine, task: Task) -> Answer {
    engine.generate(task, Box::new(())).expect("asked")
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_cpp_answers_counts_and_holds_to_what_is_asked() {
    let Some(binary) = binary() else { return };
    let server = Llama::start(&binary);
    let engine = server.engine();
    let ready = ready(&engine).await;
    assert_eq!(ready.engine, "openai:llama.cpp");
    assert_eq!(
        ready.context_tokens, 2_048,
        "the least of manifest and server"
    );

    let (text, end) = read(give(&engine, chat("hello"))).await;
    let done = end.expect("well");
    assert!(!text.is_empty());
    assert!(done.usage.prompt_tokens > 1 && done.usage.completion_tokens > 1);
    let (again, _) = read(give(&engine, chat("hello"))).await;
    assert_eq!(text, again, "greedy");

    let mut limited = chat("hello");
    limited.sampling.max_tokens = Some(3);
    let done = read(give(&engine, limited)).await.1.expect("well");
    assert_eq!(
        (done.finish, done.usage.completion_tokens),
        (Finish::Length, 3)
    );

    let mut penalised = chat("hello");
    penalised.sampling.presence_penalty = 2.0;
    read(give(&engine, penalised)).await.1.expect("known to it");

    let mut stopped = chat("hello");
    let word = text.split_whitespace().nth(1).expect("two words");
    stopped.sampling.stop = vec![word.to_owned()];
    let (cut, end) = read(give(&engine, stopped)).await;
    assert_eq!(end.expect("well").finish, Finish::Stop);
    assert_eq!(cut, text[..text.find(word).expect("there")]);

    // Drawn with a seed: the same again, and another with another.
    let drawn = |seed| {
        let mut task = chat("tell me anything");
        task.sampling.temperature = 1.5;
        task.sampling.seed = Some(seed);
        task
    };
    let one = read(give(&engine, drawn(1))).await.0;
    assert_eq!(one, read(give(&engine, drawn(1))).await.0);
    let others = [2, 3, 4].map(|seed| read(give(&engine, drawn(seed))));
    let others = futures_util::future::join_all(others).await;
    assert!(others.iter().any(|(text, _)| *text != one));

    // A text goes as it is.
    let (_, input, output) = {
        let task = Task::new(
            Input::Text("hello".to_owned()),
            Sampling {
                max_tokens: Some(5),
                ..sampling()
            },
        );
        let mut answer = give(&engine, task);
        let mut position = 0;
        while let Some(chunk) = patiently(answer.chunk()).await {
            assert_eq!(chunk.position, position);
            position += chunk.positions().expect("few");
        }
        let done = patiently(answer.end()).await.expect("well");
        (done.finish, done.usage.prompt_tokens, position)
    };
    assert!(input >= 1 && output >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_cpp_holds_answers_to_schemas_and_choices_and_a_missing_call_is_no_answer() {
    let Some(binary) = binary() else { return };
    let server = Llama::start(&binary);
    let engine = server.engine();
    ready(&engine).await;
    let formed = |format| {
        let mut task = chat("say something");
        task.sampling.max_tokens = Some(64);
        task.output = Output {
            format,
            ..Output::default()
        };
        task
    };
    let choices = vec!["maybe \"so\"".to_owned(), "never\\ever".to_owned()];
    let (text, end) = read(give(&engine, formed(Format::Choice(choices.clone())))).await;
    assert_eq!(end.expect("well").finish, Finish::Stop);
    assert!(choices.contains(&text), "{text:?}");

    let schema = r#"{"type":"object","properties":{"a":{"enum":["x","y"]}},"required":["a"],"additionalProperties":false}"#;
    let (text, end) = read(give(&engine, formed(Format::JsonSchema(schema.to_owned())))).await;
    end.expect("well");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        ["x", "y"].contains(&value["a"].as_str().expect("a text")),
        "{text}"
    );

    let mut called = chat("What is the capital of France?");
    called.sampling.max_tokens = Some(128);
    called.output = Output {
        tools: vec![Tool {
            name: "say".to_owned(),
            description: "Says it.".to_owned(),
            parameters: schema.to_owned(),
            strict: true,
        }],
        tool_choice: ToolChoice::Required,
        ..Output::default()
    };
    called.sampling.stop = vec![".".to_owned()];
    // This server does not know how the small model's template writes calls: it leaves the demand
    // out and says nothing.
    let error = read(give(&engine, called)).await.1.expect_err("no call");
    assert_eq!(error.code, Code::Invalid, "anybody can bring it about");
    assert!(error.message.contains("a call was demanded"), "{error}");

    // What is wrong comes back as the caller's, with the server's words.
    let mut wrong = formed(Format::JsonSchema(r#"{"type":"nonsense"}"#.to_owned()));
    wrong.sampling.max_tokens = Some(4);
    let error = read(give(&engine, wrong)).await.1.expect_err("no schema");
    assert_eq!(error.code, Code::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_cpp_stops_to_generate_when_an_answer_is_dropped_and_its_end_is_noticed() {
    let Some(binary) = binary() else { return };
    let mut server = Llama::start(&binary);
    let engine = server.engine();
    ready(&engine).await;
    let mut endless = chat("count");
    endless.sampling.max_tokens = Some(1_900);
    // No token that would end it: its grammar has no end.
    endless.output.format = Format::Choice(vec!["x".repeat(1_800)]);
    let mut answer = give(&engine, endless.clone());
    assert!(patiently(answer.chunk()).await.is_some(), "it generates");
    drop(answer);
    let cancelled = async {
        while !server.log().contains("cancel task") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    patiently(cancelled).await;

    let mut cut = give(&engine, endless);
    assert!(patiently(cut.chunk()).await.is_some());
    server.child.kill().expect("killed");
    server.child.wait().expect("gone");
    while patiently(cut.chunk()).await.is_some() {}
    let error = patiently(cut.end()).await.expect_err("cut");
    assert_eq!(error.code, Code::Unavailable);
    assert_eq!(down(&engine).await.0, "server-down");
    let refused = engine.generate(chat("hello"), Box::new(()));
    assert_eq!(refused.expect_err("down").code, Code::Unavailable);
}
