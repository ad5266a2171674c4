//! Requests that are not answered: what the tenant is told, and that nobody is blamed for it.

use crate::mesh::{Mesh, PATIENCE, request, within};
use crate::script::Script;
use tether_orchestrator::job::JobState;
use tether_wire::card::ModelFault;
use tether_wire::codec;
use tether_wire::rpc::{Code, RpcError, method};

#[tokio::test]
async fn the_only_worker_being_silent_is_said_clearly_and_with_a_time() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::Silent).await;
    let request = request("a");
    let began = std::time::Instant::now();
    let answer = mesh.submit(&request).await;
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert_eq!(answer.failed().retry_after_ms, Some(5_000));
    assert!(!answer.failed().untried, "a worker had it");
    assert_eq!(mesh.job(&request).await.state, JobState::Failed);
}

/// Another one may have met them already. [T-INF-2]
#[tokio::test]
async fn an_orchestrator_that_has_met_no_worker_yet_does_not_say_that_a_model_does_not_exist() {
    let mesh = Mesh::start().await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert!(answer.failed().untried);
    assert!(answer.failed().retry_after_ms.is_some());
    let mut no_model = request("c");
    no_model.model = "no model".into();
    assert_eq!(mesh.submit(&no_model).await.failed().code, Code::NotFound);
    let _worker = mesh.worker(10, Script::Answer(1)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    let mut unknown = request("b");
    unknown.model = "other".into();
    assert_eq!(mesh.submit(&unknown).await.failed().code, Code::NotFound);
}

#[tokio::test]
async fn a_known_model_that_nothing_serves_is_unavailable_and_costs_no_job() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.worker(10, Script::Answer(1)).await;
    mesh.remembers().await;
    let goodbye = worker.goodbye(9);
    worker.send(&goodbye).await;
    mesh.fleet("nobody is there", |fleet| fleet.is_empty())
        .await;
    let request = request("a");
    let answer = mesh.submit(&request).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert!(answer.failed().retry_after_ms.is_some());
    let job = mesh.orchestrator.store().job(request.correlation).await;
    assert_eq!(job, Ok(None));
}

/// [T-CRD-3]
#[tokio::test]
async fn a_model_that_a_worker_names_among_its_faults_is_unavailable_and_others_do_not_exist() {
    let mesh = Mesh::start().await;
    let mut worker = mesh
        .worker_with(10, Script::Answer(1), |says| {
            let worker = says.card.worker.as_mut().expect("a worker");
            worker.models.clear();
            worker.faults = vec![ModelFault {
                model: "fresh@1.0".into(),
                reason: "memory-strained: 12 MiB are free".into(),
            }];
        })
        .await;
    for (text, code) in [
        ("fresh@1.0", Code::Unavailable),
        ("fresh", Code::Unavailable),
        ("fresh@1.1", Code::NotFound),
        ("other", Code::NotFound),
    ] {
        let mut request = request(text);
        request.model = text.into();
        let answer = mesh.submit(&request).await;
        let told = answer.failed();
        assert_eq!(told.code, code, "{text}: {told}");
        if code == Code::Unavailable {
            assert_eq!(told.retry_after_ms, Some(5_000));
            let why = format!("the model `{text}` just now: memory-strained");
            assert!(told.message.ends_with(&why), "{told}");
        }
    }
    let goodbye = worker.goodbye(9);
    worker.send(&goodbye).await;
    mesh.fleet("it is gone", |fleet| fleet.is_empty()).await;
    let mut request = request("gone");
    request.model = "fresh".into();
    assert_eq!(mesh.submit(&request).await.failed().code, Code::NotFound);
}

#[tokio::test]
async fn what_the_tenant_did_wrong_is_told_as_it_is_and_tried_once() {
    let mesh = Mesh::start().await;
    let wrong = RpcError::new(Code::Invalid, "the prompt is too long").with_param("messages");
    let first = mesh.worker(10, Script::Refuse(wrong.clone())).await;
    let second = mesh.worker(11, Script::Refuse(wrong.clone())).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.error, Some(wrong));
    assert_eq!(first.scripted.orders() + second.scripted.orders(), 1);
    let suspects = mesh.orchestrator.fleet_snapshot();
    assert!(suspects.workers().all(|worker| !worker.is_suspect()));
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.failures), (JobState::Refused, 0));
}

#[tokio::test]
async fn a_request_outside_the_limits_is_refused_by_its_field() {
    let mesh = Mesh::start().await;
    let mut hot = request("a");
    hot.sampling.temperature = 9.0;
    let answer = mesh.submit(&hot).await;
    assert_eq!(answer.failed().code, Code::Invalid);
    assert_eq!(answer.failed().param.as_deref(), Some("temperature"));
    let mut others = request("a");
    others.retry_token = "b".into();
    let answer = mesh.submit(&others).await;
    assert_eq!(answer.failed().param.as_deref(), Some("correlation"));
}

#[tokio::test]
async fn only_gateways_submit_and_read_the_directory() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    let id = mesh.orchestrator.id();
    let link = worker.node.linked(&id).expect("linked");
    for method in [method::SUBMIT, method::DIRECTORY] {
        let mut call = link
            .call(method, Some(PATIENCE), &codec::encode(&request("a")))
            .await
            .expect("called");
        let error = within("an answer", call.next()).await.expect_err("refused");
        assert_eq!(error.code, Code::Forbidden, "{method}");
    }
    let link = mesh.link().await;
    let mut call = link.call("nonsense", None, b"x").await.expect("called");
    let error = within("an answer", call.next()).await.expect_err("refused");
    assert_eq!(error.code, Code::Unimplemented);
}

#[tokio::test]
async fn more_requests_than_are_allowed_at_once_are_told_to_come_again() {
    let mesh = Mesh::with(|config| config.max_open = 1).await;
    let worker = mesh.worker(10, Script::ChunkOnly).await;
    let mut orders = worker.scripted.orders.subscribe();
    let link = mesh.link().await;
    let body = codec::encode(&request("a"));
    let _open = link
        .call(method::SUBMIT, None, &body)
        .await
        .expect("called");
    within("it is under way", orders.wait_for(|count| *count > 0))
        .await
        .expect("lives");
    let answer = mesh.submit(&request("b")).await;
    assert_eq!(answer.failed().code, Code::Overloaded);
    assert!(answer.failed().retry_after_ms.is_some());
}
