//! Where requests go and why, as their callers and an operator see it.

use crate::admin::get;
use crate::mesh::{Mesh, Says, Worker, request, submitted, within};
use crate::script::Script;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tether_wire::NodeId;
use tether_wire::infer::{InferRequest, Input, Output, Prefix};
use tether_wire::rpc::{Code, RpcError};

pub async fn explained(mesh: &Mesh, id: &str) -> (u16, Value) {
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let (status, text) = get(mesh, &format!("/requests/{id}"), Some(&token)).await;
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// One with these words behind a long beginning.
fn turn(token: &str, beginning: &str) -> InferRequest {
    let mut request = request(token);
    let text = format!("{}{token}", beginning.repeat(2_048));
    request.input = Input::Text(text);
    request.prefix = Prefix::of(&request.tenant, &request.input, &Output::default());
    request
}

async fn four(mesh: &Mesh) -> Vec<Worker> {
    let mut workers = Vec::new();
    for n in 10..14 {
        workers.push(mesh.worker(n, Script::Answer(1)).await);
    }
    workers
}

#[tokio::test]
async fn the_turns_of_a_conversation_go_to_one_worker_and_conversations_to_all() {
    let mesh = Mesh::start().await;
    let _workers = four(&mesh).await;
    let mut all: BTreeSet<NodeId> = BTreeSet::new();
    for beginning in 'a'..'q' {
        let mut one = BTreeSet::new();
        for n in 0..4 {
            let request = turn(&format!("{beginning}{n}"), &beginning.to_string());
            one.extend(mesh.submit(&request).await.worker());
        }
        assert_eq!(one.len(), 1, "the turns of {beginning}");
        all.extend(one);
    }
    assert!(all.len() > 1, "a conversation is not all conversations");
}

#[tokio::test]
async fn a_request_that_failed_is_explained_and_none_of_its_prompt_is_told() {
    let mesh = Mesh::with(|config| config.placement.explained = 0.0).await;
    let refuses = RpcError::new(Code::Internal, "secret words of a worker");
    let refusing = mesh.worker(10, Script::Refuse(refuses)).await;
    let request = turn("a", "prompt");
    assert!(mesh.submit(&request).await.error.is_some());
    let id = request.correlation.to_hex();
    assert_eq!(get(&mesh, &format!("/requests/{id}"), None).await.0, 401);
    let (status, kept) = explained(&mesh, &id[..12]).await;
    assert_eq!(status, 200, "{kept}");
    assert_eq!(kept["request"], json!(id));
    let run = &kept["runs"][0];
    assert_eq!(
        (&run["tenant"], &run["model"]),
        (&json!("acme"), &json!("tiny@1.0"))
    );
    assert_eq!(run["outcome"], json!("internal"));
    assert_eq!(run["prefix_blocks"], json!(48));
    let order = &run["orders"][0];
    assert_eq!(order["weights"]["queue"], json!(2.0));
    assert_eq!(order["worker"], json!(refusing.id().to_hex()));
    assert_eq!(order["outcome"], json!("internal"));
    let reason = order["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("the only one that could be asked"),
        "{reason}"
    );
    let candidate = &order["candidates"][0];
    assert_eq!(candidate["worker"], order["worker"]);
    let terms = candidate["terms"].as_object().expect("terms");
    assert_eq!(terms.len(), 9);
    let text = kept.to_string();
    assert!(
        !text.contains("promptprompt") && !text.contains("secret"),
        "{text}"
    );
    let (status, same) = explained(&mesh, &format!("chatcmpl-{id}")).await;
    assert_eq!((status, &same), (200, &kept), "by the completion's id");
}

#[tokio::test]
async fn of_requests_that_did_not_fail_those_that_are_drawn_are_explained() {
    for (share, status) in [(0.0, 404), (1.0, 200)] {
        let mesh = Mesh::with(|config| config.placement.explained = share).await;
        let _worker = mesh.worker(10, Script::Answer(1)).await;
        assert!(mesh.submit(&request("a")).await.is_whole());
        let id = request("a").correlation.to_hex();
        let (found, kept) = explained(&mesh, &id).await;
        assert_eq!(found, status, "{kept}");
        if status == 404 {
            let error = kept["error"].as_str().expect("why");
            assert!(
                error.contains("nothing is kept") && error.contains("0 %"),
                "{error}"
            );
        } else {
            assert_eq!(kept["runs"][0]["outcome"], json!("ok"));
            assert_eq!(kept["runs"][0]["orders"][0]["outcome"], json!("ok"));
        }
    }
    let mesh = Mesh::start().await;
    assert_eq!(explained(&mesh, "no-id").await.0, 400);
    let nobody = request("b");
    assert_eq!(mesh.submit(&nobody).await.failed().code, Code::Unavailable);
    let (status, kept) = explained(&mesh, &nobody.correlation.to_hex()).await;
    assert_eq!(
        status, 200,
        "a model that nobody knows is a failure: {kept}"
    );
    assert_eq!(kept["runs"][0]["orders"], json!([]));
}

#[tokio::test]
async fn weights_in_the_placement_file_count_as_soon_as_it_is_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("placement.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    // At first nothing counts as much as the price, then not at all.
    write("near_equal = 0.0\n[weights]\nprice = 100\n");
    let path = file.clone();
    let mesh = Mesh::with(move |config| config.placement_file = Some(path)).await;
    let dear = |says: &mut Says| {
        let worker = says.card.worker.as_mut().expect("a worker");
        worker.price_per_1k_micro = 1_000_000;
    };
    let cold = |says: &mut Says| says.models()[0].warm = false;
    let dear = mesh.worker_with(10, Script::Answer(1), dear).await.id();
    let _cold = mesh.worker_with(11, Script::Answer(1), cold).await;
    for n in 0..5 {
        let answer = mesh.submit(&request(&n.to_string())).await;
        assert_ne!(answer.worker(), Some(dear));
    }
    write("near_equal = 0.0\n[weights]\nprice = -1\n");
    write("near_equal = 0.0\n[weights]\nprice = 0\n");
    within("the file is read again", async {
        for n in 5.. {
            let answer = mesh.submit(&request(&n.to_string())).await;
            if answer.worker() == Some(dear) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_explained_are_the_weights_that_counted_and_not_those_when_the_answer_ended() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("placement.toml");
    let write = |price: u32| {
        let text = format!("explained = 1.0\n[weights]\nprice = {price}\n");
        std::fs::write(&file, text).expect("written");
    };
    write(3);
    let path = file.clone();
    let mesh = Mesh::with(move |config| config.placement_file = Some(path)).await;
    let worker = mesh.worker(10, Script::Paused(2)).await;
    let other = |says: &mut Says| says.models()[0].model = "other@2.0".parse().expect("valid");
    let _other = mesh.worker_with(11, Script::Answer(1), other).await;
    let mut long = submitted(&mesh.link().await, &request("a")).await;
    long.next().await.expect("accepted");
    write(5);
    let price = async |request: &InferRequest| {
        let (status, kept) = explained(&mesh, &request.correlation.to_hex()).await;
        assert_eq!(status, 200, "{kept}");
        kept["runs"][0]["orders"][0]["weights"]["price"].clone()
    };
    within("the file is read again", async {
        for n in 0.. {
            let mut short = request(&n.to_string());
            short.model = "other@2.0".to_owned();
            assert!(mesh.submit(&short).await.is_whole());
            if price(&short).await == json!(5.0) {
                break;
            }
        }
    })
    .await;
    worker.scripted.turn.send_replace(true);
    long.rest().await;
    assert!(long.is_whole(), "{:?}", long.error);
    assert_eq!(price(&request("a")).await, json!(3.0));
}
