//! Stopping: what is open finishes or is said to be cut, and is recorded.

use crate::mesh::{Answer, Mesh, PATIENCE, request, run_of, within};
use crate::script::Script;
use tether_orchestrator::job::JobState;
use tether_wire::codec;
use tether_wire::rpc::{Code, method};

#[tokio::test]
async fn an_answer_that_outlasts_the_drain_is_cut_with_a_word_and_recorded() {
    let mesh = Mesh::with(|config| config.drain_timeout_ms = 100).await;
    let _worker = mesh.worker(10, Script::ChunkOnly).await;
    let request = request("a");
    let link = mesh.link().await;
    let call = link
        .call(method::SUBMIT, Some(PATIENCE), &codec::encode(&request))
        .await
        .expect("called");
    let mut answer = Answer::new(call);
    answer.next().await.expect("accepted");
    answer.next().await.expect("a piece");
    let (mesh, ()) = tokio::join!(mesh.restart(|_| ()), answer.rest());
    assert_eq!(answer.failed().code, Code::Elsewhere, "another one goes on");
    let job = within("the job", mesh.job(&request)).await;
    assert_eq!(
        (job.state, run_of(&job)),
        (JobState::Failed, 1),
        "by its own run"
    );
    assert!(job.error.expect("a reason").contains("stopping"));
}
