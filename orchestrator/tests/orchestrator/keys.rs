//! Repeated keys: what ran once does not run again.

use crate::mesh::{Mesh, request, run_of};
use crate::script::Script;
use tether_orchestrator::job::JobState;
use tether_wire::infer::{AnswerEvent, Format, Input};
use tether_wire::rpc::{Code, RpcError};

#[tokio::test]
async fn a_key_of_an_answer_is_never_run_again_whatever_it_comes_with() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    let orders = worker.scripted.orders();
    assert!(mesh.submit(&request("a")).await.is_whole());
    let mut other_input = request("a");
    other_input.input = Input::Text("something else".into());
    let mut other_form = request("a");
    other_form.output.format = Format::JsonObject;
    let mut other_number = request("a");
    other_number.answers = 3;
    for other in [other_input, other_form, other_number] {
        let other = mesh.submit(&other).await;
        assert_eq!(other.failed().code, Code::Conflict);
        assert!(other.failed().message.contains("another request"));
    }
    assert_eq!(worker.scripted.orders(), orders);
}

#[tokio::test]
async fn a_key_whose_request_gave_nothing_may_run_again() {
    let mesh = Mesh::start().await;
    let full = RpcError::new(Code::Overloaded, "full");
    let mut bad = mesh.worker(10, Script::Refuse(full)).await;
    assert_eq!(
        mesh.submit(&request("a")).await.failed().code,
        Code::Overloaded
    );
    let _good = mesh.worker(11, Script::Answer(2)).await;
    let goodbye = bad.goodbye(5);
    bad.send(&goodbye).await;
    mesh.fleet("only the good one", |fleet| fleet.len() == 1)
        .await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    assert_eq!(run_of(&mesh.job(&request("a")).await), 2);
}

#[tokio::test]
async fn a_key_whose_answer_was_cut_runs_again_with_the_same_seed() {
    let mesh = Mesh::start().await;
    let mut bad = mesh.worker(10, Script::ChunkAndEnd).await;
    let cut = mesh.submit(&request("a")).await;
    assert_eq!(cut.failed().code, Code::Unavailable);
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.failures), (JobState::Failed, 1));
    let _good = mesh.worker(11, Script::Answer(2)).await;
    let goodbye = bad.goodbye(5);
    bad.send(&goodbye).await;
    mesh.fleet("only the good one", |fleet| fleet.len() == 1)
        .await;
    let again = mesh.submit(&request("a")).await;
    assert!(again.is_whole(), "{:?}", again.error);
    let AnswerEvent::Accepted(accepted) = &again.events[0] else {
        panic!("{:?}", again.events)
    };
    assert_eq!(accepted.seed, job.seed);
    let whole = mesh.job(&request("a")).await;
    assert_eq!((whole.seed, run_of(&whole)), (job.seed, 2));
    assert_eq!(whole.usage.completion_tokens, 2, "counted once");
}
