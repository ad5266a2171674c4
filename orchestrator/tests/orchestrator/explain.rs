//! What an operator asks of the fleet and of the DHT: filters, one worker, topics.

use crate::admin::get;
use crate::mesh::{Mesh, Says, cold, within};
use crate::script::Script;
use serde_json::{Value, json};
use tether_wire::beat::NodeState;
use tether_wire::{Region, Topic};

async fn ask(mesh: &Mesh, path: &str) -> (u16, Value) {
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let (status, text) = get(mesh, path, Some(&token)).await;
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// The ids of rows.
fn ids(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().expect("rows");
    rows.iter().filter_map(|row| row["id"].as_str()).collect()
}

#[tokio::test]
async fn the_orchestrator_sends_only_the_workers_that_are_asked_for() {
    let mesh = Mesh::start().await;
    let draining = |says: &mut Says| says.beat.state = NodeState::Draining;
    let other = |says: &mut Says| says.models()[0].model = "other@2.0".parse().expect("valid");
    let well = mesh.worker(10, Script::Answer(1)).await;
    let leaves = mesh.worker_with(11, Script::Answer(1), draining).await;
    let large = mesh.worker_with(12, Script::Answer(1), other).await;
    let (well, leaves, large) = (
        well.id().to_hex(),
        leaves.id().to_hex(),
        large.id().to_hex(),
    );
    let (status, all) = ask(&mesh, "/fleet").await;
    assert_eq!((status, ids(&all).len()), (200, 3));
    assert_eq!(ids(&all)[0], leaves, "who gets no work comes first");
    assert_eq!(all[0]["reasons"], json!(["it is draining"]));
    assert_eq!(all[0]["linked"], true);
    for (query, wanted) in [
        ("state=draining", vec![&leaves]),
        ("state=unroutable", vec![&leaves]),
        ("model=other", vec![&large]),
        ("model=tiny@1.0&state=routable", vec![&well]),
        ("model=tiny&state=suspect", vec![]),
        ("region=elsewhere", vec![]),
    ] {
        let (status, rows) = ask(&mesh, &format!("/fleet?{query}")).await;
        assert_eq!(status, 200, "{query}: {rows}");
        assert_eq!(ids(&rows), wanted, "{query}");
    }
    let (_, page) = ask(&mesh, "/fleet?counts=true&limit=1&state=routable").await;
    assert_eq!(
        (&page["total"], &page["matched"], &page["left_out"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(page["workers"].as_array().map(Vec::len), Some(1));
    for (query, words) in [
        ("state=asleep", "starting, serving, unavailable"),
        ("limit=0", "1 to 100000"),
        ("colour=blue", "region, model, state"),
    ] {
        let (status, why) = ask(&mesh, &format!("/fleet?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(why.as_str().expect("text").contains(words), "{why}");
    }
    let long = format!("/fleet?model={}", "x".repeat(5_000));
    assert_eq!(ask(&mesh, &long).await.0, 400);
}

#[tokio::test]
async fn one_worker_is_explained_and_who_went_is_remembered() {
    let mesh = Mesh::start().await;
    let best = mesh.worker(10, Script::Answer(1)).await;
    let mut worse = mesh.worker_with(11, Script::Answer(1), cold).await;
    let id = worse.id().to_hex();
    let (status, _) = get(&mesh, &format!("/fleet/{id}"), None).await;
    assert_eq!(status, 401);
    let path = format!("/fleet/{}", &id[..16]);
    let (status, said) = ask(&mesh, &path).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(
        (&said["id"], &said["standing"]),
        (&json!(id), &json!("live"))
    );
    assert_eq!(
        (&said["role"], &said["tier"]),
        (&json!("worker"), &json!("trusted"))
    );
    assert_eq!(said["link"]["state"], "direct");
    assert_eq!(said["beat"]["seq"], 1);
    assert_eq!(said["card"]["worker"]["engine"], "scripted");
    assert!(said["granted_until_ms"].is_u64(), "{said}");
    let model = &said["models"][0];
    assert_eq!((&model["rank"], &model["of"]), (&json!(2), &json!(2)));
    assert_eq!(model["best"]["worker"], best.id().to_hex());
    assert_eq!(
        (&model["terms"]["warm"], &model["best"]["terms"]["warm"]),
        (&json!(0.0), &json!(1.0))
    );

    let goodbye = worse.goodbye(2);
    worse.send(&goodbye).await;
    let worker = worse.id();
    mesh.fleet("it went", move |fleet| fleet.worker(&worker).is_none())
        .await;
    let (status, said) = ask(&mesh, &path).await;
    assert_eq!((status, &said["standing"]), (200, &json!("departed")));
    assert_eq!((&said["row"], &said["card"]), (&Value::Null, &Value::Null));

    let mut near = best.id().to_hex();
    near.replace_range(20..21, if &near[20..21] == "0" { "1" } else { "0" });
    let (status, said) = ask(&mesh, &format!("/fleet/{near}")).await;
    assert_eq!((status, &said["near"]), (404, &json!([best.id().to_hex()])));
    let (status, said) = ask(&mesh, "/fleet/nobody").await;
    assert_eq!(status, 400, "{said}");
}

#[tokio::test]
async fn what_the_node_announces_and_sees_is_shown() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    assert_eq!(get(&mesh, "/topics", None).await.0, 401);
    assert_eq!(ask(&mesh, "/topics?lookup=maybe").await.0, 400);
    let region: &Region = mesh.orchestrator.node().region();
    let (control, presence) = (
        Topic::Control(region.clone()),
        Topic::Presence(region.clone()),
    );
    within("announced", worker.node.announce(&presence))
        .await
        .expect("announced");
    let (status, page) = within("the page", ask(&mesh, "/topics?lookup=true")).await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["id"], mesh.orchestrator.id().to_hex());
    assert_eq!(page["role"], "orchestrator");
    let row = |topic: &Topic| {
        let rows = page["topics"].as_array().expect("topics");
        let row = rows.iter().find(|row| row["name"] == topic.to_string());
        row.unwrap_or_else(|| panic!("{topic} is not in {page}"))
    };
    let key = mesh.local.mesh.topic_key(&control).to_hex();
    assert_eq!(row(&control)["key"], key);
    let announced = &row(&control)["announced"];
    assert!(announced["last_ms_ago"].is_u64(), "{page}");
    assert!(announced["next_in_ms"].is_u64(), "{page}");
    assert_eq!(announced["error"], Value::Null);
    let seen = &row(&presence)["seen"];
    assert_eq!(seen["keys"], json!([worker.id().to_hex()]), "{page}");
    assert_eq!((&seen["found"], &seen["linked"]), (&json!(1), &json!(1)));
    assert_eq!(row(&presence)["announced"], Value::Null);
    assert_eq!(page["orchestrators"], json!([]), "it is the only one");
}

#[tokio::test]
async fn a_worker_whose_clock_is_off_is_told_so_where_it_is_looked_for() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let mut says = worker.says(1);
    says.beat.issued_ms += 3_600_000;
    worker.send(&says).await;
    let id = worker.id().to_hex();
    let row = within("it is shown", async {
        loop {
            let (_, rows) = ask(&mesh, "/fleet").await;
            if rows[0]["id"] == id {
                return rows[0].clone();
            }
        }
    })
    .await;
    let reason = row["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("(future)") && reason.contains("clock"),
        "{row}"
    );
    assert_eq!(row["state"], "unknown");
    let (status, said) = ask(&mesh, &format!("/fleet/{id}")).await;
    assert_eq!(status, 404, "{said}");
    let error = said["error"].as_str().expect("an error");
    assert!(
        error.contains("future") && error.contains("clock"),
        "{error}"
    );
}
