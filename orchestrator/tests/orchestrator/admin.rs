//! The operator's pages.

use crate::mesh::{Mesh, request, within};
use crate::script::Script;

pub async fn get(mesh: &Mesh, path: &str, token: Option<&str>) -> (u16, String) {
    let url = format!("http://{}{path}", mesh.orchestrator.admin_addr());
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.expect("an answer");
    (
        response.status().as_u16(),
        response.text().await.expect("text"),
    )
}

#[tokio::test]
async fn the_fleet_needs_the_token_and_metrics_and_health_do_not() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    assert_eq!(get(&mesh, "/healthz", None).await.0, 200);
    assert_eq!(get(&mesh, "/readyz", None).await.0, 200);
    // Counted with the next tick of the fleet.
    let itself = r#"tether_orchestrator_nodes{role="orchestrator",state="live"} 1"#;
    let counted = async {
        loop {
            let (status, text) = get(&mesh, "/metrics", None).await;
            assert_eq!(status, 200);
            assert!(text.contains("tether_orchestrator_heartbeats_accepted_total "));
            if text.contains(itself) {
                return;
            }
        }
    };
    within("it counts itself", counted).await;
    assert_eq!(get(&mesh, "/fleet", None).await.0, 401);
    assert_eq!(get(&mesh, "/fleet", Some("wrong")).await.0, 401);
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let (status, text) = get(&mesh, "/fleet", Some(&token)).await;
    assert_eq!(status, 200);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(rows[0]["id"], worker.id().to_hex());
    assert_eq!(rows[0]["state"], "serving");
    assert_eq!(rows[0]["models"], serde_json::json!(["tiny@1.0"]));
    assert_eq!(rows[0]["in_flight"], 0);
    assert_eq!(rows[0]["reason"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_count_of_jobs_is_true_at_the_moment_of_the_scrape() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::Answer(1)).await;
    for (token, count) in [("a", 1), ("b", 2)] {
        assert!(mesh.submit(&request(token)).await.is_whole());
        let (_, text) = get(&mesh, "/metrics", None).await;
        let line = format!("tether_orchestrator_jobs{{state=\"done\"}} {count}");
        assert!(
            text.lines().any(|it| it == line),
            "{line} is not in\n{text}"
        );
    }
}
