//! What an operator's rules do to requests, and that nothing else decides. (SCH-6)

use crate::mesh::{DIGEST, Mesh, Says, Worker, cold, request, run_of, within};
use crate::placed::explained;
use crate::script::{Death, Script};
use crate::waiting::{filled, is_waiting, submit};
use serde_json::json;
use tether_net::Call;
use tether_net::testing::metric;
use tether_orchestrator::OrchestratorConfig;
use tether_orchestrator::job::JobState;
use tether_wire::card::ModelOffer;
use tether_wire::codec;
use tether_wire::directory::{DirectoryUpdate, MAX_UPDATE_BYTES};
use tether_wire::infer::{Accepted, AnswerEvent, InferRequest, Resume, Started};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Digest, Region, Tier};

const SMALL: Digest = Digest([8; 32]);

/// A mesh with this policy.
async fn mesh(policy: &str) -> Mesh {
    Mesh::with_policy(policy, |_| ()).await
}

impl Mesh {
    /// A worker of another region, there and routable.
    async fn worker_in(
        &self,
        n: u8,
        script: Script,
        name: &str,
        change: impl FnOnce(&mut Says),
    ) -> Worker {
        let region = Region::new(name).expect("valid");
        let worker = self.silent_worker_in(n, script, region.clone(), Tier::Trusted);
        let mut worker = worker.await;
        let mut says = worker.says(1);
        says.card.region = region;
        change(&mut says);
        worker.send(&says).await;
        let id = worker.id();
        self.fleet("the worker is there", move |fleet| {
            fleet.worker(&id).is_some()
        })
        .await;
        worker
    }
}

fn offers(says: &mut Says, model: &str, digest: Digest) {
    let offer = ModelOffer {
        model: model.parse().expect("valid"),
        digest,
        ..says.models()[0].clone()
    };
    *says.models() = vec![offer];
}

fn asks(token: &str, model: &str) -> InferRequest {
    InferRequest {
        model: model.to_owned(),
        ..request(token)
    }
}

fn accepted(events: &[AnswerEvent]) -> &Accepted {
    let last = events.iter().rev().find_map(|event| match event {
        AnswerEvent::Accepted(it) => Some(it),
        _ => None,
    });
    last.expect("accepted")
}

#[tokio::test]
async fn a_model_that_a_tenant_may_not_use_is_refused_and_costs_nothing() {
    let mesh = mesh(r#"{"tenants": {"acme": {"models": {"deny": ["tiny"]}}}}"#).await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    let request = request("a");
    let answer = mesh.submit(&request).await;
    let told = answer.failed();
    assert_eq!(
        (told.code, told.param.as_deref()),
        (Code::Forbidden, Some("model"))
    );
    assert!(
        told.message
            .contains("`acme` may not use the model `tiny@1.0`"),
        "{told}"
    );
    // One that there is not is refused in the same words, so that nobody learns which there are.
    let unknown = mesh.submit(&asks("b", "tiny@9.9")).await;
    assert_eq!(unknown.failed().code, Code::Forbidden);
    let job = mesh.orchestrator.store().job(request.correlation).await;
    assert_eq!((job, worker.scripted.orders()), (Ok(None), 0));
    let refused = "tether_orchestrator_policy_refusals_total{reason=\"model\"} 2";
    metric(&mesh.registry, refused).await;
    assert_eq!(
        mesh.metric("tether_orchestrator_dispatches_total{outcome=\"forbidden\"}"),
        2
    );
    let suspects = mesh.orchestrator.fleet_snapshot();
    assert!(suspects.workers().all(|worker| !worker.is_suspect()));
    let (_, kept) = explained(&mesh, &request.correlation.to_hex()).await;
    assert_eq!(kept["runs"][0]["rule"], "tenants.acme.models.deny (tiny)");
}

#[tokio::test]
async fn a_request_for_more_than_is_allowed_is_refused_by_its_parameter_and_an_open_one_is_limited()
{
    let policy = r#"{"global": {"max_output_tokens": 8, "max_prompt_bytes": 5}}"#;
    let mesh = mesh(policy).await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    let mut greedy = request("a");
    greedy.sampling.max_tokens = Some(9);
    let told = mesh.submit(&greedy).await.error.expect("refused");
    assert_eq!(
        (told.code, told.param.as_deref()),
        (Code::Invalid, Some("max_tokens"))
    );
    let mut long = request("b");
    long.input = tether_wire::infer::Input::Text("hello!".into());
    let told = mesh.submit(&long).await.error.expect("refused");
    assert_eq!(
        (told.code, told.param.as_deref()),
        (Code::Invalid, Some("messages"))
    );
    let open = mesh.submit(&request("c")).await;
    assert!(open.is_whole());
    assert_eq!(
        accepted(&open.events).max_tokens,
        Some(8),
        "said to who asked"
    );
    let last = worker.scripted.last.borrow().clone().expect("an order");
    assert_eq!(last.sampling.max_tokens, Some(8));
    let mut modest = request("d");
    modest.sampling.max_tokens = Some(4);
    let modest = mesh.submit(&modest).await;
    assert_eq!(accepted(&modest.events).max_tokens, None, "its own limit");
}

#[tokio::test]
async fn a_request_never_leaves_the_regions_that_it_may_be_in() {
    let mesh = mesh(r#"{"tenants": {"acme": {"regions": ["local", "eu"]}}}"#).await;
    let far = mesh.worker_in(10, Script::Answer(1), "us", |_| ()).await;
    let told = mesh.submit(&request("a")).await.error.expect("refused");
    assert_eq!(told.code, Code::Unavailable, "{told}");
    assert!(told.retry_after_ms.is_some());
    let near = mesh.worker_in(11, Script::Answer(1), "eu", cold).await;
    for token in ["b", "c", "d", "e"] {
        let answer = mesh.submit(&request(token)).await;
        assert!(answer.is_whole());
        assert_eq!(answer.worker(), Some(near.id()));
    }
    assert_eq!(
        far.scripted.orders(),
        0,
        "warm and idle, and of another region"
    );
}

#[tokio::test]
async fn an_answer_whose_worker_dies_does_not_go_on_in_another_region() {
    let policy = r#"{"tenants": {"acme": {"regions": ["local"]}}}"#;
    let mesh = Mesh::with_policy(policy, |config| config.hand_over_timeout_ms = 300).await;
    let _dies = mesh.worker(10, Script::Dies(2, Death::Ends)).await;
    let far = mesh.worker_in(11, Script::Letters(4), "us", |_| ()).await;
    let answer = mesh.submit(&request("a")).await;
    assert!(
        answer.failed().message.contains("cut off"),
        "{}",
        answer.failed()
    );
    assert_eq!(far.scripted.orders(), 0);
}

#[tokio::test]
async fn an_orchestrator_of_another_region_does_not_take_the_request() {
    let mesh = mesh(r#"{"tenants": {"acme": {"regions": ["eu"]}}}"#).await;
    let worker = mesh.worker_in(10, Script::Answer(1), "eu", |_| ()).await;
    let told = mesh.submit(&request("a")).await.error.expect("refused");
    assert_eq!(told.code, Code::Forbidden);
    assert!(
        told.message.contains("stay in `eu`, and this is `local`"),
        "{told}"
    );
    assert_eq!(worker.scripted.orders(), 0);
}

#[tokio::test]
async fn a_bare_name_means_the_newest_version_that_the_tenant_may_use() {
    let mesh = mesh(r#"{"global": {"models": {"deny": ["tiny@2.0"]}}}"#).await;
    let old = mesh.worker(10, Script::Answer(1)).await;
    let new = mesh.worker_with(11, Script::Answer(1), |says| {
        offers(says, "tiny@2.0", SMALL)
    });
    let new = new.await;
    let answer = mesh.submit(&asks("a", "tiny")).await;
    assert!(answer.is_whole());
    assert_eq!(answer.worker(), Some(old.id()));
    assert_eq!(new.scripted.orders(), 0);
}

const DEGRADES: &str = r#"{"global": {"degrade": {"tiny": "small"}}}"#;

/// A mesh where each model is tried once.
async fn degrading() -> Mesh {
    Mesh::with_policy(DEGRADES, |config| config.retry.attempts = 1).await
}

fn busy() -> Script {
    Script::Refuse(RpcError::new(Code::Overloaded, "full").with_retry_after_ms(700))
}

#[tokio::test]
async fn a_model_without_room_is_answered_by_the_smaller_one_which_says_so() {
    let once = |config: &mut OrchestratorConfig| {
        config.retry.attempts = 1;
        config.placement.explained = 1.0;
    };
    let mesh = Mesh::with_policy(DEGRADES, once).await;
    let large = mesh.worker(10, busy()).await;
    let small = mesh.worker_with(11, Script::Answer(3), |says| {
        offers(says, "small@1.0", SMALL)
    });
    let small = small.await;
    let request = request("a");
    let answer = mesh.submit(&request).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.worker(), Some(small.id()));
    let told = accepted(&answer.events);
    assert_eq!(told.model.to_string(), "small@1.0");
    let from = told.degraded_from.as_ref().map(ToString::to_string);
    assert_eq!(from.as_deref(), Some("tiny@1.0"));
    assert_eq!(large.scripted.orders(), 1);
    // It is recorded, and will be billed, as the model that answered.
    let job = mesh.job(&request).await;
    assert_eq!(
        (job.state, job.model.to_string().as_str()),
        (JobState::Done, "small@1.0")
    );
    assert_eq!((job.digest, job.usage.completion_tokens), (Some(SMALL), 3));
    assert_eq!(
        mesh.metric("tether_orchestrator_degraded_total{reason=\"overloaded\"}"),
        1
    );
    let (_, kept) = explained(&mesh, &request.correlation.to_hex()).await;
    let (run, orders) = (&kept["runs"][0], &kept["runs"][0]["orders"]);
    let models = (&run["model"], &run["degraded_from"]);
    assert_eq!(
        (models.0, models.1),
        (&json!("small@1.0"), &json!("tiny@1.0"))
    );
    let outcomes = (&orders[0]["outcome"], &orders[1]["outcome"]);
    assert_eq!(outcomes, (&json!("overloaded"), &json!("ok")), "of both");
}

#[tokio::test]
async fn a_request_that_would_wait_in_vain_is_answered_by_the_smaller_one_at_once() {
    let busy = |config: &mut OrchestratorConfig| config.queue.entries = 1;
    let mesh = Mesh::with_policy(DEGRADES, busy).await;
    let large = mesh.worker(10, Script::Queued(1)).await;
    let mut answers = filled(&mesh, &large).await;
    answers.push(submit(&mesh, "waits").await);
    is_waiting(&mesh, 1).await;
    let small = mesh.worker_with(11, Script::Answer(1), |says| {
        offers(says, "small@1.0", SMALL)
    });
    let small = small.await;
    let request = request("shed");
    let answer = mesh.submit(&request).await;
    assert_eq!(answer.worker(), Some(small.id()));
    assert!(accepted(&answer.events).degraded_from.is_some());
    let job = mesh.job(&request).await;
    assert_eq!(job.model.to_string(), "small@1.0");
    assert_eq!(run_of(&job), 1, "it was no job of the larger one");
    assert_eq!(
        mesh.metric("tether_orchestrator_degraded_total{reason=\"overloaded\"}"),
        1
    );
}

#[tokio::test]
async fn a_model_that_nobody_serves_just_now_is_answered_by_the_smaller_one() {
    let mesh = degrading().await;
    let mut gone = mesh.worker(10, Script::Answer(1)).await;
    let small = mesh.worker_with(11, Script::Answer(1), |says| {
        offers(says, "small@1.0", SMALL)
    });
    let small = small.await;
    let whole = mesh.submit(&request("a")).await;
    assert_eq!(
        accepted(&whole.events).degraded_from,
        None,
        "there was room"
    );
    let goodbye = gone.goodbye(9);
    gone.send(&goodbye).await;
    mesh.fleet("one is left", |fleet| fleet.len() == 1).await;
    let answer = mesh.submit(&request("b")).await;
    assert_eq!(answer.worker(), Some(small.id()));
    assert!(accepted(&answer.events).degraded_from.is_some());
}

#[tokio::test]
async fn where_the_smaller_one_has_no_room_either_the_tenant_is_told_of_the_one_that_it_asked_for()
{
    let mesh = degrading().await;
    let _large = mesh.worker(10, busy()).await;
    let full = Script::Refuse(RpcError::new(Code::Overloaded, "full").with_retry_after_ms(9_000));
    let small = mesh.worker_with(11, full, |says| offers(says, "small@1.0", SMALL));
    let small = small.await;
    let told = mesh.submit(&request("a")).await.error.expect("refused");
    assert_eq!(
        (told.code, told.retry_after_ms),
        (Code::Overloaded, Some(700))
    );
    assert_eq!(small.scripted.orders(), 1);
    assert_eq!(mesh.job(&request("a")).await.state, JobState::Refused);
}

#[tokio::test]
async fn what_only_the_smaller_one_cannot_do_is_no_mistake_of_the_tenants() {
    let mesh = degrading().await;
    let _large = mesh.worker(10, busy()).await;
    let short = RpcError::new(Code::Invalid, "the prompt does not fit").with_param("messages");
    let script = Script::Refuse(short);
    let small = mesh.worker_with(11, script, |says| offers(says, "small@1.0", SMALL));
    let _small = small.await;
    let told = mesh.submit(&request("a")).await.error.expect("refused");
    assert_eq!(
        (told.code, told.retry_after_ms),
        (Code::Overloaded, Some(700))
    );
}

fn too_short() -> Script {
    let short = RpcError::new(Code::Invalid, "the prompt does not fit").with_param("messages");
    Script::Refuse(short)
}

#[tokio::test]
async fn where_the_queue_shed_it_the_smaller_ones_mistake_is_not_told_either() {
    let busy = |config: &mut OrchestratorConfig| config.queue.entries = 1;
    let mesh = Mesh::with_policy(DEGRADES, busy).await;
    let large = mesh.worker(10, Script::Queued(1)).await;
    let mut answers = filled(&mesh, &large).await;
    answers.push(submit(&mesh, "waits").await);
    is_waiting(&mesh, 1).await;
    let small = mesh.worker_with(11, too_short(), |says| offers(says, "small@1.0", SMALL));
    let small = small.await;
    let told = mesh.submit(&request("shed")).await.error.expect("refused");
    assert_eq!(told.code, Code::Overloaded);
    assert!(told.retry_after_ms.is_some());
    assert_eq!(small.scripted.orders(), 1);
}

#[tokio::test]
async fn a_smaller_model_that_cannot_do_it_is_passed_over_for_the_next() {
    const TINIEST: Digest = Digest([9; 32]);
    let policy = r#"{"global": {"degrade": {"tiny": "small", "small": "tiniest"}}}"#;
    let mesh = Mesh::with_policy(policy, |config| config.retry.attempts = 1).await;
    let _large = mesh.worker(10, busy()).await;
    let small = mesh.worker_with(11, too_short(), |says| offers(says, "small@1.0", SMALL));
    let _small = small.await;
    let tiniest = mesh.worker_with(12, Script::Answer(3), |says| {
        offers(says, "tiniest@1.0", TINIEST)
    });
    let tiniest = tiniest.await;
    let answer = mesh.submit(&request("a")).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.worker(), Some(tiniest.id()));
    let from = accepted(&answer.events).degraded_from.as_ref();
    assert_eq!(from.map(ToString::to_string).as_deref(), Some("tiny@1.0"));
}

#[tokio::test]
async fn an_answer_of_a_smaller_model_goes_on_as_that() {
    let mesh = degrading().await;
    let _large = mesh.worker(10, Script::Letters(4)).await;
    let small = mesh.worker_with(11, Script::Letters(4), |says| {
        offers(says, "small@1.0", SMALL)
    });
    let small = small.await;
    let goes_on = |model: &str, digest| InferRequest {
        resume: Some(Resume {
            lost: Vec::new(),
            started: Some(Started {
                model: Some(model.parse().expect("valid")),
                digest,
                seed: 7,
                numerics_class: String::new(),
                worker: None,
                degraded_from: None,
                transcript: vec![0, 1],
            }),
        }),
        ..request(model)
    };
    let answer = mesh.submit(&goes_on("small@1.0", SMALL)).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(
        (answer.worker(), answer.text().as_str()),
        (Some(small.id()), "abcd")
    );
    assert!(
        accepted(&answer.events).degraded_from.is_some(),
        "it was not asked for"
    );
    let asked = mesh.submit(&goes_on("tiny@1.0", DIGEST)).await;
    assert_eq!(accepted(&asked.events).degraded_from, None);
}

#[tokio::test]
async fn a_gateway_cannot_name_a_model_that_the_tenant_may_not_use() {
    let mesh = mesh(r#"{"global": {"models": {"deny": ["small"]}}}"#).await;
    let _large = mesh.worker(10, Script::Answer(1)).await;
    let small = mesh.worker_with(11, Script::Answer(1), |says| {
        offers(says, "small@1.0", SMALL)
    });
    let small = small.await;
    let mut request = request("a");
    request.resume = Some(Resume {
        lost: Vec::new(),
        started: Some(Started {
            model: Some("small@1.0".parse().expect("valid")),
            digest: SMALL,
            seed: 7,
            numerics_class: String::new(),
            worker: None,
            degraded_from: None,
            transcript: Vec::new(),
        }),
    });
    let told = mesh.submit(&request).await.error.expect("refused");
    assert_eq!(told.code, Code::Forbidden);
    assert_eq!(small.scripted.orders(), 0);
}

async fn next(call: &mut Call) -> DirectoryUpdate {
    let item = within("an update", call.next()).await.expect("well");
    codec::decode("update", &item.expect("an update"), MAX_UPDATE_BYTES).expect("an update")
}

#[tokio::test]
async fn a_changed_policy_counts_at_once_and_a_bad_one_changes_nothing_and_shows() {
    let mesh = mesh("{}").await;
    let file = mesh.data.path().join("policy.json");
    let tenants = format!("[[tenant]]\nid = \"acme\"\nkey_hashes = [\"{DIGEST}\"]\n");
    let worker = mesh.worker(10, Script::Answer(1)).await;
    let link = mesh.link().await;
    let mut call = link
        .call(method::DIRECTORY, None, &[])
        .await
        .expect("called");
    assert_eq!(next(&mut call).await.rules, None, "nothing is hidden");
    std::fs::write(mesh.data.path().join("tenants.toml"), tenants).expect("written");
    let mut update = next(&mut call).await;
    while update.tenants.is_empty() {
        update = next(&mut call).await;
    }
    assert_eq!(update.tenants[0].rule, 0);
    assert!(mesh.submit(&request("a")).await.is_whole());

    let denies = r#"{"tenants": {"acme": {"models": {"deny": ["tiny"]}}}}"#;
    std::fs::write(&file, denies).expect("written");
    let update = next(&mut call).await;
    assert_eq!(update.rules.expect("rules").len(), 2);
    assert_eq!((update.tenants.len(), update.tenants[0].rule), (1, 1));
    assert_eq!(
        mesh.submit(&request("b")).await.failed().code,
        Code::Forbidden
    );

    std::fs::write(&file, "{\"tenants\": {\n\"acme\": {\"model\": {}}}}").expect("written");
    metric(&mesh.registry, "tether_orchestrator_policy_outdated 1").await;
    assert_eq!(
        mesh.submit(&request("c")).await.failed().code,
        Code::Forbidden,
        "kept"
    );
    std::fs::write(&file, "{}").expect("written");
    assert_eq!(next(&mut call).await.rules, Some(Vec::new()));
    metric(&mesh.registry, "tether_orchestrator_policy_outdated 0").await;
    assert!(mesh.submit(&request("d")).await.is_whole());
    assert_eq!(
        mesh.metric("tether_orchestrator_policy_reads_total{outcome=\"refused\"}"),
        1
    );
    assert_eq!(worker.scripted.orders(), 2);
}
