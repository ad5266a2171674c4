//! Orchestrators that share a PostgreSQL, each with connections of its own, as they are configured.
//! (RSV-2, FED-1)

#[path = "../../../tests/support/postgres.rs"]
mod postgres;

use crate::mesh::{Mesh, PATIENCE, request, run_of, submitted, within};
use crate::script::Script;
use crate::taken_over::Second;
use postgres::Server;
use std::io::Write as _;
use std::sync::Arc;
use tempfile::TempDir;
use tether_net::testing::now_ms;
use tether_orchestrator::config::{StoreConfig, StoreKind};
use tether_orchestrator::job::JobState;
use tether_orchestrator::store::postgres::{Place, PostgresStore};
use tether_orchestrator::store::{MetadataStore, Opening};
use tether_wire::infer::{InferRequest, Resume};
use tether_wire::rpc::Code;

/// A database that several orchestrators share, and the key of what is in it.
struct Shared {
    server: Server,
    url: String,
    folder: TempDir,
}

impl Shared {
    /// Nothing where the machine has no PostgreSQL, which fails with `TETHER_TEST_REQUIRE=all`.
    fn new() -> Option<Self> {
        let server = match Server::start() {
            Ok(server) => server,
            Err(missing) => {
                let required = std::env::var("TETHER_TEST_REQUIRE").as_deref() == Ok("all");
                assert!(!required, "required by TETHER_TEST_REQUIRE=all: {missing}");
                let _ = writeln!(std::io::stderr(), "skipped: {missing}");
                return None;
            }
        };
        let url = server.database("tether");
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self {
            server,
            url,
            folder,
        })
    }

    async fn mesh(&self) -> Mesh {
        let opening = Opening::in_folder(self.folder.path(), now_ms());
        let place = Place::new(&self.url).expect("valid");
        let store = PostgresStore::connect(place, opening).await;
        let store: Arc<dyn MetadataStore> = Arc::new(store.expect("connected"));
        Mesh::with_store(|_| (), move |_| store).await
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            kind: StoreKind::Postgres,
            url: Some(self.url.clone()),
            password_file: None,
            key_file: Some(self.folder.path().join("store.key")),
        }
    }
}

#[tokio::test]
async fn what_one_orchestrator_answered_the_other_gives_again_and_what_it_runs_is_found() {
    let Some(shared) = Shared::new() else { return };
    let mesh = shared.mesh().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::configured(&mesh, &worker, shared.config()).await;
    let store = mesh.orchestrator.store();
    let live = store.live(now_ms()).await.expect("works");
    assert_eq!(live.len(), 2, "both say that they live");
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    let elsewhere = second.submit(&request("a")).await;
    let owner = mesh.orchestrator.id().to_hex();
    assert_eq!(elsewhere.failed().code, Code::Elsewhere);
    assert_eq!(elsewhere.failed().param.as_ref(), Some(&owner));
    worker.scripted.turn.send_replace(true);
    first.rest().await;
    assert!(first.is_whole(), "{:?}", first.error);
    mesh.orchestrator.shutdown().await.expect("stops");
    let again = second.submit(&request("a")).await;
    assert_eq!(again.events, first.events);
    assert_eq!(worker.scripted.orders(), 1);
    let live = second.orchestrator.store().live(now_ms()).await;
    assert_eq!(live.expect("works").len(), 1, "who stops says so");
}

#[tokio::test]
async fn a_job_of_an_orchestrator_that_is_lost_goes_on_at_the_other_and_is_counted_once() {
    let Some(shared) = Shared::new() else { return };
    let mesh = shared.mesh().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let second = Second::configured(&mesh, &worker, shared.config()).await;
    let mut first = submitted(&mesh.link().await, &request("a")).await;
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    let lost = InferRequest {
        resume: Some(Resume {
            lost: vec![mesh.orchestrator.id()],
            started: None,
        }),
        ..request("a")
    };
    let mut taken = submitted(&second.link, &lost).await;
    taken.next().await.expect("accepted");
    worker.scripted.turn.send_replace(true);
    taken.rest().await;
    assert!(taken.is_whole(), "{:?}", taken.error);
    first.rest().await;
    assert_eq!(first.failed().code, Code::Elsewhere);
    let job = mesh.job(&request("a")).await;
    assert_eq!(
        (job.state, job.owner),
        (JobState::Done, second.orchestrator.id())
    );
    assert_eq!((run_of(&job), job.usage.completion_tokens), (2, 3));
}

#[tokio::test]
async fn a_database_that_stops_fails_requests_clearly_and_serves_them_once_it_is_back() {
    let Some(shared) = Shared::new() else { return };
    let mesh = shared.mesh().await;
    let worker = mesh.worker(10, Script::Letters(3)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    shared.server.stop_at_once();
    let refused = mesh.submit(&request("b")).await;
    assert_eq!(refused.failed().code, Code::Unavailable);
    assert!(refused.failed().retry_after_ms.is_some());
    assert_eq!(
        worker.scripted.orders(),
        1,
        "nothing runs that is not recorded"
    );
    shared.server.start_again();
    within("it works again", async {
        let by = tokio::time::Instant::now() + PATIENCE;
        while !mesh.submit(&request("b")).await.is_whole() {
            assert!(tokio::time::Instant::now() < by, "it never works again");
        }
    })
    .await;
    assert!(mesh.submit(&request("a")).await.is_whole(), "still kept");
}
