//! Dead letters over the admin port: what failed, and to run it again. (RSV-3)

use crate::mesh::{Mesh, Worker, request, run_of};
use crate::script::{Death, Script};
use reqwest::Method;
use serde_json::Value;
use std::path::PathBuf;
use tether_orchestrator::admin::{LetterPage, LetterRow, Replayed};
use tether_orchestrator::job::JobState;
use tether_orchestrator::orchestrator::STORE_FILE;
use tether_wire::infer::Input;
use tether_wire::rpc::{Code, RpcError};

async fn ask(mesh: &Mesh, method: Method, path: &str) -> (u16, String) {
    let url = format!(
        "http://{}/dead-letters{path}",
        mesh.orchestrator.admin_addr()
    );
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let request = reqwest::Client::new().request(method, url);
    let response = request.bearer_auth(token).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.text().await.expect("text"))
}

async fn listed(mesh: &Mesh) -> Vec<LetterRow> {
    let (status, text) = ask(mesh, Method::GET, "").await;
    assert_eq!(status, 200, "{text}");
    let page: LetterPage = serde_json::from_str(&text).expect("a page");
    page.letters
}

async fn replayed(mesh: &Mesh, path: &str) -> Replayed {
    let (status, text) = ask(mesh, Method::POST, &format!("{path}/replay")).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("what became of it")
}

/// A mesh where a request has failed, by its only worker's fault.
async fn failed() -> (Mesh, Worker, String) {
    let mesh = Mesh::start().await;
    let fault = RpcError::new(Code::Internal, "its engine fell");
    let bad = mesh.worker(10, Script::Refuse(fault)).await;
    assert_eq!(
        mesh.submit(&request("a")).await.failed().code,
        Code::Internal
    );
    let path = format!("/{}", request("a").correlation.to_hex());
    (mesh, bad, path)
}

async fn leaves(mesh: &Mesh, worker: &mut Worker) {
    let goodbye = worker.goodbye(5);
    worker.send(&goodbye).await;
    let id = worker.id();
    mesh.fleet("it is gone", move |fleet| fleet.worker(&id).is_none())
        .await;
}

#[tokio::test]
async fn what_workers_failed_at_is_listed_with_the_reason_the_attempts_and_the_request() {
    let (mesh, bad, path) = failed().await;
    let letters = listed(&mesh).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (letter.tenant.as_str(), letter.code.as_str()),
        ("acme", "internal")
    );
    assert!(letter.reason.starts_with("internal: "), "{}", letter.reason);
    assert_eq!(letter.attempts[0].worker, bad.id());
    assert_eq!(letter.attempts[0].code, "internal");
    let unasked = (&letter.attempts[0].message, &letter.request);
    assert_eq!(unasked, (&None, &None), "only where it is asked for");
    let (status, text) = ask(&mesh, Method::GET, &path).await;
    assert_eq!(status, 200, "{text}");
    let shown: LetterRow = serde_json::from_str(&text).expect("a letter");
    assert_eq!(shown, *letter);
    let (status, text) = ask(&mesh, Method::GET, &format!("{path}?request=true")).await;
    assert_eq!(status, 200, "{text}");
    let shown: LetterRow = serde_json::from_str(&text).expect("a letter");
    let said = shown.attempts[0].message.as_deref();
    assert_eq!(said, Some("its engine fell"));
    let asked = shown.request.expect("the request");
    assert_eq!(asked["input"]["text"], "hello");
    assert_eq!(
        asked["sampling"]["seed"],
        Value::Null,
        "as the tenant made it"
    );
    assert_eq!(ask(&mesh, Method::GET, "/zz").await.0, 400);
    assert_eq!(
        ask(&mesh, Method::GET, &format!("/{}", "0".repeat(32)))
            .await
            .0,
        404
    );
    assert_eq!(ask(&mesh, Method::GET, "?limit=0").await.0, 400);
}

/// Everything that lies in the files of a mesh's store.
fn at_rest(mesh: &Mesh) -> Vec<u8> {
    let files = std::fs::read_dir(mesh.data.path()).expect("the folder");
    let files = files.map(|file| file.expect("a file").path());
    let of_store = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(STORE_FILE)
    };
    let read = |path| std::fs::read(path).expect("read");
    files.filter(of_store).flat_map(read).collect()
}

#[tokio::test]
async fn a_worker_that_quotes_the_prompt_as_it_fails_leaves_no_word_of_it_at_rest() {
    let mesh = Mesh::start().await;
    let quoting = |code| RpcError::new(code, "no: `tell nobody of rosebud`").with_param("rosebud");
    for (n, code) in (10..).zip([Code::Internal, Code::Unavailable, Code::Invalid]) {
        let mut asked = request(code.as_str());
        asked.input = Input::Text("tell nobody of rosebud".into());
        let mut worker = mesh.worker(n, Script::Refuse(quoting(code))).await;
        assert_eq!(mesh.submit(&asked).await.failed().code, code);
        leaves(&mesh, &mut worker).await;
        let why = mesh.job(&asked).await.error.expect("why it ended");
        assert!(why.starts_with(code.as_str()), "{why}");
    }
    assert_eq!(listed(&mesh).await.len(), 2, "sealed");
    let lies = at_rest(&mesh);
    let holds = |part: &[u8]| lies.windows(part.len()).any(|it| it == part);
    assert!(holds(b"tiny@1.0"), "it was looked at");
    assert!(!holds(b"rosebud"));
}

#[tokio::test]
async fn what_was_tried_is_told_also_where_the_tenants_key_was_dropped() {
    let (mesh, bad, path) = failed().await;
    let forgotten = mesh.orchestrator.store().forget_key(request("a").tenant);
    assert_eq!(forgotten.await, Ok(true));
    let (status, text) = ask(&mesh, Method::GET, &path).await;
    assert_eq!(status, 200, "{text}");
    let shown: LetterRow = serde_json::from_str(&text).expect("a letter");
    assert_eq!(shown.attempts[0].worker, bad.id());
    let (status, text) = ask(&mesh, Method::GET, &format!("{path}?request=true")).await;
    assert_eq!(status, 410, "{text}");
    assert_eq!(ask(&mesh, Method::DELETE, &path).await.0, 204);
}

#[tokio::test]
async fn a_dead_letter_runs_once_more_under_its_key_and_whoever_comes_with_that_has_the_answer() {
    let (mesh, mut bad, path) = failed().await;
    let seed = mesh.job(&request("a")).await.seed;
    leaves(&mesh, &mut bad).await;
    let good = mesh.worker(11, Script::Letters(3)).await;
    assert_eq!(replayed(&mesh, &path).await.outcome, "ok");
    assert_eq!(listed(&mesh).await, [], "it was answered after all");
    assert_eq!(
        ask(&mesh, Method::POST, &format!("{path}/replay")).await.0,
        404
    );
    let answer = mesh.submit(&request("a")).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!((answer.text().as_str(), good.scripted.orders()), ("abc", 1));
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.seed), (JobState::Done, seed));
    assert_eq!(run_of(&job), 2);
    assert_eq!(job.usage.completion_tokens, 3, "one bill");
}

#[tokio::test]
async fn a_dead_letter_that_fails_again_stays_and_says_so_until_it_is_dropped() {
    let (mesh, _bad, path) = failed().await;
    let again = replayed(&mesh, &path).await;
    assert_eq!(again.outcome, "internal");
    assert!(again.message.is_some());
    let letters = listed(&mesh).await;
    assert_eq!((letters.len(), letters[0].replays), (1, 1));
    assert_eq!(mesh.job(&request("a")).await.failures, 2);
    assert_eq!(ask(&mesh, Method::DELETE, &path).await.0, 204);
    assert_eq!(ask(&mesh, Method::DELETE, &path).await.0, 404);
    assert_eq!(listed(&mesh).await, []);
}

#[tokio::test]
async fn an_answer_that_was_cut_is_a_dead_letter_and_what_the_tenant_did_is_none() {
    let mesh = Mesh::with(|config| config.hand_over_timeout_ms = 200).await;
    let mut dying = mesh.worker(10, Script::Dies(2, Death::Ends)).await;
    let cut = mesh.submit(&request("a")).await;
    assert_eq!(cut.failed().code, Code::Unavailable);
    leaves(&mesh, &mut dying).await;
    for (n, code) in (11..).zip([Code::Invalid, Code::Overloaded, Code::RateLimited]) {
        let mut refuses = mesh
            .worker(n, Script::Refuse(RpcError::new(code, "no")))
            .await;
        let asked = request(code.as_str());
        assert_eq!(mesh.submit(&asked).await.failed().code, code);
        assert_eq!(mesh.job(&asked).await.state, JobState::Refused);
        leaves(&mesh, &mut refuses).await;
    }
    let letters = listed(&mesh).await;
    let jobs: Vec<_> = letters.iter().map(|letter| letter.job).collect();
    assert_eq!(jobs, [request("a").correlation]);
}
