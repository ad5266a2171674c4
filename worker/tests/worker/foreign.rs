//! A server that the provider runs: what its misbehaving costs. (WRK-4)

mod llama;
mod server;

use crate::fixture::{TestMesh, artifact, order, patiently, publisher, sampling, until};
use crate::supervisor::{ask, ask_holding, down, read, ready};
use server::BadServer;
use std::sync::atomic::Ordering;
use tether_telemetry::metrics::{Registry, WorkerMetrics};
use tether_wire::infer::{AnswerEvent, Finish, Input};
use tether_wire::rpc::Code;
use tether_worker::config::{ServerConfig, ServerKind};
use tether_worker::engine::openai::{self, ServerSpec};
use tether_worker::engine::protocol::Task;
use tether_worker::engine::{Engine, EngineState, Hold};
use tether_worker::{EngineConfig, ModelState};
use tokio::sync::oneshot;

fn config(server: &BadServer) -> ServerConfig {
    ServerConfig {
        url: format!("http://{}/v1/", server.address),
        kind: ServerKind::Openai,
        model: "tiny".to_owned(),
        artifact: "artifact".into(),
        digest: None,
        api_key_file: None,
        concurrency: 4,
        probe_interval_ms: 100,
    }
}

fn start_with(server: &BadServer, registry: &Registry) -> Engine {
    start_spec(config(server), registry)
}

fn start_spec(server: ServerConfig, registry: &Registry) -> Engine {
    let spec = ServerSpec {
        server,
        deadlines: EngineConfig {
            first_token_timeout_ms: 1_000,
            step_timeout_ms: 1_000,
            ..EngineConfig::default()
        },
        context_tokens: 2_048,
        key: None,
    };
    openai::start(spec, WorkerMetrics::register(registry)).expect("a client")
}

fn start(server: &BadServer) -> Engine {
    start_with(server, &Registry::new())
}

/// Text, tokens of prompt and answer, positions.
async fn whole(engine: &Engine, prompt: &str) -> (String, u32, u32) {
    let mut answer = ask(engine, prompt);
    let (mut text, mut position) = (String::new(), 0);
    while let Some(chunk) = patiently(answer.chunk()).await {
        assert_eq!(chunk.position, position, "no gap");
        assert!(chunk.tokens.is_empty(), "ids are not known");
        position += chunk.positions().expect("few");
        text += &chunk.text;
    }
    let done = patiently(answer.end()).await.expect(prompt);
    assert_eq!(done.finish, Finish::Stop);
    assert_eq!(done.usage.completion_tokens, position, "{prompt}");
    (text, done.usage.prompt_tokens, position)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_server_comes_whole_however_its_bytes_are_cut() {
    let server = BadServer::start().await;
    let engine = start(&server);
    let ready = ready(&engine).await;
    assert_eq!(ready.engine, "openai:openai");
    assert!(ready.numerics_class.starts_with("foreign/openai/"));
    assert_eq!((ready.context_tokens, ready.sequences), (1_024, 4));
    for prompt in ["well", "odd pieces", "finish twice"] {
        let answer = whole(&engine, prompt).await;
        assert_eq!(answer, ("hihi".to_owned(), 3, 2), "{prompt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_cannot_be_true_are_counted_here_and_told() {
    let server = BadServer::start().await;
    let registry = Registry::new();
    let engine = start_with(&server, &registry);
    ready(&engine).await;
    let count = |prompt| {
        let engine = &engine;
        async move {
            let (_, input, output) = whole(engine, prompt).await;
            (input, output)
        }
    };
    assert_eq!(count("says more").await, (3, 5), "it can be true");
    assert_eq!(count("lies high").await, (3, 2));
    assert_eq!(
        count("lies low").await,
        (2, 2),
        "eight bytes are two tokens"
    );
    assert_eq!(count("no usage").await, (2, 2));
    let text = registry.encode();
    for (reason, count) in [
        ("completion-tokens", 2),
        ("prompt-tokens", 1),
        ("usage-missing", 1),
    ] {
        let line = format!("tether_worker_usage_doubted_total{{reason=\"{reason}\"}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_does_instead_of_answering_is_an_error_in_time_and_no_end() {
    let server = BadServer::start().await;
    let engine = start(&server);
    let cases = [
        ("never answers", Code::Unavailable, "no progress"),
        ("never goes on", Code::Unavailable, "no progress"),
        ("comments for ever", Code::Unavailable, "no progress"),
        ("cut in an event", Code::Unavailable, "connection"),
        ("cut in a frame", Code::Unavailable, "connection"),
        ("cut before its end", Code::Unavailable, "connection ended"),
        ("no done", Code::Unavailable, "before the stream was ended"),
        ("no finish", Code::Unavailable, "without saying why"),
        ("two reasons", Code::Unavailable, "two reasons"),
        ("after its end", Code::Unavailable, "after its end"),
        ("malformed", Code::Unavailable, "not what it should be"),
        ("error in the stream", Code::Unavailable, "out of memory"),
        ("another model", Code::Unavailable, "huge"),
        ("a tool", Code::Unavailable, "nobody offered"),
        ("gigantic line", Code::Unavailable, "more than 131072 bytes"),
        (
            "gigantic event",
            Code::Unavailable,
            "more than 131072 bytes",
        ),
        ("endless headers", Code::Unavailable, "cannot be reached"),
        ("not http", Code::Unavailable, "cannot be reached"),
        ("wrong type", Code::Unavailable, "application/json"),
        ("endless error", Code::Unavailable, "answers 500"),
        ("400", Code::Invalid, "it says why"),
        ("401", Code::Unavailable, "refuses the worker's key"),
        ("302", Code::Unavailable, "points elsewhere"),
        ("404", Code::Unavailable, "it says why"),
        ("418", Code::Unavailable, "it says why"),
        ("500", Code::Unavailable, "it says why"),
        ("503", Code::Unavailable, "not ready"),
    ];
    for (prompt, code, words) in cases {
        // Some of them show the server to be down; this one refused the key and is left alone.
        let engine = if prompt == "401" {
            start(&server)
        } else {
            engine.clone()
        };
        ready(&engine).await;
        let (_, end) = read(ask(&engine, prompt)).await;
        let error = end.expect_err(prompt);
        assert_eq!(error.code, code, "{prompt}: {error}");
        assert!(error.message.contains(words), "{prompt}: {error}");
        assert!(error.message.len() < 600, "{prompt}: {error}");
    }
    ready(&engine).await;
    whole(&engine, "well").await;
    let (_, end) = read(ask(&engine, "429")).await;
    let error = end.expect_err("too much to do");
    assert_eq!(error.code, Code::Overloaded);
    assert_eq!(error.retry_after_ms, Some(7_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_or_without_its_model_is_out_of_service_until_it_is_back() {
    let server = BadServer::start().await;
    let engine = start(&server);
    ready(&engine).await;
    let first = ready(&engine).await.numerics_class;
    server.models_status.store(500, Ordering::SeqCst);
    assert_eq!(down(&engine).await.0, "server-down");
    let refused = engine.generate(
        Task::new(Input::Text("well".into()), sampling()),
        Box::new(()),
    );
    assert_eq!(refused.expect_err("down").code, Code::Unavailable);
    server.models_status.store(200, Ordering::SeqCst);
    let again = ready(&engine).await.numerics_class;
    assert_ne!(first, again, "another may serve there now");
    server.has_model.store(false, Ordering::SeqCst);
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "server-model");
    assert!(reason.contains("another"), "{reason}");
    engine.stop().await;
    assert_eq!(*engine.state().borrow(), EngineState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_answer_takes_a_server_that_is_well_from_nobody() {
    let server = BadServer::start().await;
    let seldom = ServerConfig {
        probe_interval_ms: 60_000,
        ..config(&server)
    };
    let engine = start_spec(seldom, &Registry::new());
    ready(&engine).await;
    let mut states = engine.state();
    states.mark_unchanged();
    for prompt in ["403", "404", "503", "302", "not http"] {
        let (_, end) = read(ask(&engine, prompt)).await;
        assert_eq!(end.expect_err(prompt).code, Code::Unavailable, "{prompt}");
        assert!(!states.has_changed().expect("it runs"), "{prompt}");
    }
    // What the probe finds is believed, and known before whoever asked is told.
    server.models_status.store(500, Ordering::SeqCst);
    let (_, end) = read(ask(&engine, "503")).await;
    end.expect_err("not ready");
    assert!(matches!(*engine.state().borrow(), EngineState::Down { .. }));
}

/// Its other end is told when it is given back.
#[derive(Debug)]
struct Place(#[expect(dead_code, reason = "told by its end")] oneshot::Sender<()>);

impl Hold for Place {
    fn leaving(&mut self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_an_answer_closes_its_connection_and_gives_its_place_back() {
    let mut server = BadServer::start().await;
    let engine = start(&server);
    ready(&engine).await;
    for prompt in ["text for ever", "never answers"] {
        let (place, given_back) = oneshot::channel();
        let mut answer = ask_holding(&engine, prompt, Place(place));
        if prompt == "text for ever" {
            assert!(patiently(answer.chunk()).await.is_some());
        }
        drop(answer);
        assert!(patiently(given_back).await.is_err(), "dropped");
    }
    // The other one needs not leave its server, since it may never have come, and may do so first.
    while patiently(server.left.recv()).await.expect("it is noticed") != "text for ever" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_cut_off_and_holds_nobody_up() {
    let mut server = BadServer::start().await;
    let engine = start(&server);
    ready(&engine).await;
    let unread = ask(&engine, "flood");
    assert_eq!(
        patiently(server.left.recv()).await.as_deref(),
        Some("flood")
    );
    whole(&engine, "well").await;
    let error = patiently(unread.end()).await.expect_err("cut off");
    assert_eq!(error.code, Code::Overloaded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_offers_the_model_of_a_server_while_it_is_well() {
    let mesh = TestMesh::new();
    let server = BadServer::start().await;
    let (dir, digest) = artifact();
    // The server has the weights: the worker sees the signed manifest alone.
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removed");
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[], |config| {
            config.trusted_publishers = vec![publisher().id()];
            config.servers = vec![ServerConfig {
                artifact: dir.path().to_owned(),
                ..self::config(&server)
            }];
        })
        .await;
    worker.serving().await;
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    assert_eq!(said.worker.models[0].digest, digest);
    assert!(said.worker.models[0].numerics_class.starts_with("foreign/"));
    assert_eq!(said.worker.engine, "openai:openai");
    let events = orchestrator
        .order(&worker.worker, &order(1, digest, "well"))
        .await
        .events()
        .await
        .expect("well");
    assert!(
        matches!(events.last(), Some(AnswerEvent::Done(done)) if done.usage.completion_tokens == 2)
    );

    server.models_status.store(503, Ordering::SeqCst);
    let said = orchestrator
        .said_where(|said| said.worker.models.is_empty())
        .await;
    assert!(said.worker.faults[0].reason.starts_with("server-down"));
    server.models_status.store(200, Ordering::SeqCst);
    orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_manifest_nobody_trusted_signed_is_not_asked() {
    let mesh = TestMesh::new();
    let server = BadServer::start().await;
    let (dir, _) = artifact();
    let worker = mesh
        .worker(&[], |config| {
            config.trusted_publishers = vec![tether_wire::NodeId([9; 32])];
            config.servers = vec![ServerConfig {
                artifact: dir.path().to_owned(),
                ..self::config(&server)
            }];
        })
        .await;
    let fault = until(worker.worker.models(), |models| match &models[0].state {
        ModelState::Faulted { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(patiently(fault).await, "untrusted-publisher");
}
