//! What a tenant sees of the rules that an orchestrator follows. (SCH-6)

use crate::world::{OTHER_KEY, World, events, send, within};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_only_the_models_that_it_may_use() {
    let world = World::new().await;
    let get = |path: &str, key: &str| send(world.http.get(world.url(path)).bearer_auth(key));
    let (_, _, listed) = get("/v1/models", crate::world::KEY).await;
    assert_eq!(listed["data"][0]["id"], "tiny");
    let (status, _, listed) = get("/v1/models", OTHER_KEY).await;
    assert_eq!((status, &listed["data"]), (200, &json!([])));
    assert_eq!(get("/v1/models/tiny", crate::world::KEY).await.0, 200);
    let (status, _, hidden) = get("/v1/models/tiny", OTHER_KEY).await;
    let (_, _, missing) = get("/v1/models/tini", OTHER_KEY).await;
    assert_eq!(
        (status, &hidden["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let said = |body: &Value| body["error"]["message"].as_str().map(str::to_owned);
    let missing = said(&missing).expect("text").replace("tini", "tiny");
    assert_eq!(said(&hidden), Some(missing), "as if there were none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_smaller_model_says_so_in_its_head_and_where_it_ends() {
    let world = World::new().await;
    let (status, headers, body) = send(world.chat("large", false)).await;
    assert_eq!(status, 200);
    assert_eq!(headers["x-tether-degraded-from"], "large@2.0");
    assert_eq!(headers["x-tether-model"], "tiny@1.0");
    assert_eq!(
        body["model"], "tiny@1.0",
        "what answered, and not what was asked for"
    );
    assert_eq!(body["tether"]["degraded_from"], "large@2.0");
    assert_eq!(body["tether"]["max_tokens"], 64);

    let response = within(world.chat("large", true).send())
        .await
        .expect("an answer");
    assert_eq!(response.headers()["x-tether-degraded-from"], "large@2.0");
    let events = events(response).await;
    let mut ends = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let last = ends
        .rfind(|event| event["tether"].is_object())
        .expect("the end");
    assert_eq!(last["tether"]["degraded_from"], "large@2.0");

    let (_, headers, body) = send(world.chat("tiny", false)).await;
    assert!(!headers.contains_key("x-tether-degraded-from"));
    let plain = body["tether"].as_object().expect("the extension");
    assert!(!plain.contains_key("degraded_from") && !plain.contains_key("max_tokens"));
}
