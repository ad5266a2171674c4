//! A store that fails under a request: nothing counts that is not recorded.

use crate::mesh::{Answer, Mesh, PATIENCE, Worker, cold, request, run_of, within};
use crate::script::{Death, Script};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tether_orchestrator::OrchestratorConfig;
use tether_orchestrator::job::{Answer as KeptAnswer, Job, JobState, NewJob, Step};
use tether_orchestrator::store::{
    Holder, KnownModel, Lease, LetterMark, MetadataStore, OpenJob, Pruned, Released, Reserved,
    StoreError, StoreFuture, StoredLetter, TakeOver,
};
use tether_wire::infer::{AnswerEvent, Usage};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{CorrelationId, ModelRef, NodeId, TenantId, codec};

/// What goes wrong at the step to this state.
#[derive(Clone, Copy)]
pub enum Wrong {
    Full(JobState),
    Reserve,
    Panic(JobState),
    /// Takes the step when all is well.
    Slow(JobState),
    /// Fails at the step when all is well elsewhere.
    SlowAndFull(JobState),
    /// No end is recorded.
    Ends,
    /// Counting never ends.
    Count,
    /// Each step fails once, and is not taken; or it is, and nobody hears of that.
    Blips {
        taken: bool,
    },
    /// What is asked at the start fails once.
    Starts,
    /// Nothing is written any more about a job once so much was: the power is gone.
    Cut(usize),
}

/// Goes wrong until it is told that all is well.
struct Faulty(Arc<dyn MetadataStore>, Wrong, Arc<AtomicBool>, AtomicUsize);

impl Faulty {
    /// Whether this is the first time that the first is asked, or the second, or the third.
    fn is_first(&self, which: usize) -> bool {
        let bit = 1 << which;
        matches!(self.1, Wrong::Starts) && self.3.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// Whether the power is gone, with this write.
    fn is_cut(&self) -> bool {
        matches!(self.1, Wrong::Cut(after) if self.3.fetch_add(1, Ordering::SeqCst) >= after)
    }
}

fn full<T>() -> StoreFuture<'static, T>
where
    T: Send + 'static,
{
    Box::pin(async { Err(StoreError::Disk("the disk is full".into())) })
}

impl MetadataStore for Faulty {
    fn reserve(&self, job: NewJob) -> StoreFuture<'_, Reserved> {
        match self.1 {
            Wrong::Reserve => full(),
            _ if self.is_cut() => full(),
            _ => self.0.reserve(job),
        }
    }
    fn step(&self, holder: Holder, step: Step, now_ms: u64) -> StoreFuture<'_, ()> {
        match self.1 {
            _ if self.is_cut() => full(),
            Wrong::Full(at) if at == step.state() => full(),
            Wrong::Blips { taken } if self.3.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
                let step = taken.then(|| self.0.step(holder, step, now_ms));
                Box::pin(async move {
                    if let Some(step) = step {
                        step.await?;
                    }
                    full().await
                })
            }
            Wrong::Ends if !step.state().is_open() && !self.2.load(Ordering::SeqCst) => full(),
            Wrong::Panic(at) if at == step.state() => panic!("on purpose"),
            Wrong::Slow(at) | Wrong::SlowAndFull(at) if at == step.state() => {
                let well = self.2.clone();
                let (is_full, step) = (
                    matches!(self.1, Wrong::SlowAndFull(_)),
                    self.0.step(holder, step, now_ms),
                );
                Box::pin(async move {
                    while !well.load(Ordering::SeqCst) {
                        tokio::task::yield_now().await;
                    }
                    if is_full { full().await } else { step.await }
                })
            }
            _ => self.0.step(holder, step, now_ms),
        }
    }
    fn job(&self, id: CorrelationId) -> StoreFuture<'_, Option<Job>> {
        self.0.job(id)
    }
    fn take_over(&self, order: TakeOver) -> StoreFuture<'_, Job> {
        self.0.take_over(order)
    }
    fn release_open(&self, owner: NodeId, why: String, now_ms: u64) -> StoreFuture<'_, Released> {
        if self.is_first(0) {
            return full();
        }
        self.0.release_open(owner, why, now_ms)
    }
    fn open_jobs(&self, owner: NodeId, limit: u32, by_ms: u64) -> StoreFuture<'_, Vec<OpenJob>> {
        self.0.open_jobs(owner, limit, by_ms)
    }
    fn answer(
        &self,
        tenant: TenantId,
        job: CorrelationId,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<KeptAnswer>> {
        self.0.answer(tenant, job, now_ms)
    }
    fn dead_letters(
        &self,
        behind: Option<LetterMark>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredLetter>> {
        self.0.dead_letters(behind, limit)
    }
    fn dead_letter_as_listed(&self, job: CorrelationId) -> StoreFuture<'_, Option<StoredLetter>> {
        self.0.dead_letter_as_listed(job)
    }
    fn dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, Option<(StoredLetter, Vec<u8>)>> {
        self.0.dead_letter(job)
    }
    fn mark_replayed(&self, job: CorrelationId, replays: u32, now_ms: u64) -> StoreFuture<'_, ()> {
        self.0.mark_replayed(job, replays, now_ms)
    }
    fn drop_dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, bool> {
        self.0.drop_dead_letter(job)
    }
    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool> {
        self.0.forget_key(tenant)
    }
    fn renew(&self, lease: Lease) -> StoreFuture<'_, ()> {
        if self.is_first(1) {
            return full();
        }
        self.0.renew(lease)
    }
    fn retire(&self, orchestrator: NodeId) -> StoreFuture<'_, ()> {
        self.0.retire(orchestrator)
    }
    fn live(&self, now_ms: u64) -> StoreFuture<'_, Vec<Lease>> {
        self.0.live(now_ms)
    }
    fn note_models(&self, models: Vec<KnownModel>) -> StoreFuture<'_, ()> {
        self.0.note_models(models)
    }
    fn forget_models(&self, models: Vec<ModelRef>) -> StoreFuture<'_, ()> {
        self.0.forget_models(models)
    }
    fn known_models(&self) -> StoreFuture<'_, Vec<KnownModel>> {
        if self.is_first(2) {
            return full();
        }
        self.0.known_models()
    }
    fn prune(&self, now_ms: u64, limit: u32) -> StoreFuture<'_, Pruned> {
        self.0.prune(now_ms, limit)
    }
    fn counts(&self) -> StoreFuture<'_, Vec<(JobState, usize)>> {
        match self.1 {
            Wrong::Count => Box::pin(std::future::pending()),
            _ => self.0.counts(),
        }
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.0.close()
    }
}

pub async fn mesh(wrong: Wrong) -> Mesh {
    mesh_until(wrong, Arc::default()).await
}

async fn mesh_until(wrong: Wrong, well: Arc<AtomicBool>) -> Mesh {
    mesh_with(|_| (), wrong, well).await
}

async fn mesh_with(
    change: impl FnOnce(&mut OrchestratorConfig),
    wrong: Wrong,
    well: Arc<AtomicBool>,
) -> Mesh {
    Mesh::with_store(change, move |store| {
        Arc::new(Faulty(store, wrong, well, AtomicUsize::new(0)))
    })
    .await
}

/// A request whose end is not taken until the disk is well again.
async fn ends_late(script: Script, code: Code) -> (Mesh, Worker, Job) {
    let well = Arc::new(AtomicBool::new(false));
    let mesh = mesh_until(Wrong::Ends, well.clone()).await;
    let worker = mesh.worker(10, script).await;
    assert_eq!(mesh.submit(&request("a")).await.failed().code, code);
    assert!(mesh.job(&request("a")).await.state.is_open());
    let repeated = mesh.submit(&request("a")).await;
    assert!(repeated.failed().message.contains("still running"));
    well.store(true, Ordering::SeqCst);
    within("the end is recorded", async {
        while mesh.job(&request("a")).await.state.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let job = mesh.job(&request("a")).await;
    (mesh, worker, job)
}

#[tokio::test]
async fn an_end_that_a_full_disk_did_not_take_is_recorded_when_there_is_room_again() {
    let (mesh, _worker, job) = ends_late(Script::Answer(2), Code::Internal).await;
    assert_eq!(job.state, JobState::Failed, "the caller was told so");
    let given = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
    };
    assert_eq!((job.usage, run_of(&job)), (given, 1));
    let again = mesh.submit(&request("a")).await;
    assert!(again.is_whole(), "{:?}", again.error);
    let anew = mesh.job(&request("a")).await;
    assert_eq!((anew.state, run_of(&anew)), (JobState::Done, 2));
    assert_eq!((anew.seed, anew.usage), (job.seed, given), "billed once");
}

#[tokio::test]
async fn a_key_whose_end_was_recorded_late_runs_again_where_nothing_was_given() {
    let refusal = RpcError::new(Code::Overloaded, "full");
    let (mesh, worker, job) = ends_late(Script::Refuse(refusal), Code::Overloaded).await;
    assert_eq!(
        (job.state, job.usage),
        (JobState::Refused, Usage::default())
    );
    let orders = worker.scripted.orders();
    mesh.submit(&request("a")).await;
    assert_eq!(worker.scripted.orders(), orders + 1);
    assert_eq!(run_of(&mesh.job(&request("a")).await), 2);
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_costs_no_answer_and_no_second_bill() {
    for taken in [false, true] {
        let mesh = mesh_with(
            |config| config.store_timeout_ms = 10_000,
            Wrong::Blips { taken },
            Arc::default(),
        );
        let mesh = mesh.await;
        let worker = mesh.worker(10, Script::Answer(5)).await;
        let answer = mesh.submit(&request("a")).await;
        assert!(answer.is_whole(), "{:?}", answer.error);
        let job = mesh.job(&request("a")).await;
        assert_eq!(
            (job.state, job.usage.completion_tokens, job.attempts),
            (JobState::Done, 5, 1)
        );
        assert_eq!(worker.scripted.orders(), 1);
    }
}

/// One that was cut off may hold its rows for a moment still.
#[tokio::test]
async fn a_store_that_fails_for_a_moment_keeps_no_orchestrator_from_starting() {
    let mesh = mesh(Wrong::Starts).await;
    let _worker = mesh.worker(10, Script::Answer(5)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_costs_no_answer_that_is_handed_over() {
    for taken in [false, true] {
        let mesh = mesh_with(
            |config| config.store_timeout_ms = 10_000,
            Wrong::Blips { taken },
            Arc::default(),
        );
        let mesh = mesh.await;
        let _dying = mesh.worker(10, Script::Dies(5, Death::Ends)).await;
        let _other = mesh.worker_with(11, Script::Letters(9), cold).await;
        let answer = mesh.submit(&request("a")).await;
        assert!(answer.is_whole(), "{:?}", answer.error);
        let job = mesh.job(&request("a")).await;
        assert_eq!((job.state, job.attempts), (JobState::Done, 2));
    }
}

#[tokio::test]
async fn nothing_is_run_that_could_not_be_recorded() {
    let mesh = mesh(Wrong::Reserve).await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert!(answer.failed().retry_after_ms.is_some());
    assert_eq!(worker.scripted.orders(), 0);
}

#[tokio::test]
async fn an_answer_whose_end_could_not_be_recorded_is_not_presented_as_whole() {
    let mesh = mesh(Wrong::Full(JobState::Done)).await;
    let _worker = mesh.worker(10, Script::Answer(2)).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Internal);
    let done = (answer.events.iter()).any(|it| matches!(it, AnswerEvent::Done(_)));
    assert!(!done, "{:?}", answer.events);
}

/// A request of which five pieces came while the commit that it has begun is held up.
async fn streamed_over_a_slow_disk(wrong: Wrong) -> (Mesh, Worker, Answer, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let mesh = mesh_until(wrong, well.clone()).await;
    let worker = mesh.worker(10, Script::Answer(5)).await;
    let body = codec::encode(&request("a"));
    let link = mesh.link().await;
    let call = link.call(method::SUBMIT, Some(PATIENCE), &body).await;
    let mut answer = Answer::new(call.expect("called"));
    while answer.text().len() < 5 {
        answer
            .next()
            .await
            .expect("a piece, whatever the disk does");
    }
    let job = mesh.job(&request("a")).await;
    assert_eq!(job.state, JobState::Dispatched, "not on the disk yet");
    (mesh, worker, answer, well)
}

#[tokio::test]
async fn a_slow_disk_holds_back_no_piece_and_the_end_until_it_took_the_begin() {
    let wrong = Wrong::Slow(JobState::Streaming);
    let (mesh, _worker, mut answer, well) = streamed_over_a_slow_disk(wrong).await;
    well.store(true, Ordering::SeqCst);
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.streamed), (JobState::Done, true));
}

#[tokio::test]
async fn an_answer_whose_begin_could_not_be_recorded_is_not_presented_as_whole() {
    let wrong = Wrong::SlowAndFull(JobState::Streaming);
    let (mesh, _worker, mut answer, well) = streamed_over_a_slow_disk(wrong).await;
    well.store(true, Ordering::SeqCst);
    answer.rest().await;
    assert_eq!(answer.failed().code, Code::Internal);
    let done = (answer.events.iter()).any(|it| matches!(it, AnswerEvent::Done(_)));
    assert!(!done, "{:?}", answer.events);
    let job = mesh.job(&request("a")).await;
    assert_eq!(
        (job.state, job.usage.completion_tokens),
        (JobState::Failed, 5)
    );
}

#[tokio::test]
async fn a_panic_in_the_middle_ends_the_job_as_failed_and_frees_its_place() {
    let mesh = mesh(Wrong::Panic(JobState::Streaming)).await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Internal);
    let job = mesh.job(&request("a")).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(mesh.in_flight(&worker).await, 0);
    assert_eq!(mesh.metric("tether_orchestrator_requests_in_flight"), 0);
}

#[tokio::test]
async fn a_store_that_hangs_keeps_nobody_from_the_metrics() {
    let mesh = mesh(Wrong::Count).await;
    let (status, text) = within("a scrape", crate::admin::get(&mesh, "/metrics", None)).await;
    assert_eq!(status, 200);
    assert!(text.contains("tether_orchestrator_requests_in_flight 0"));
}

#[tokio::test]
async fn what_a_slow_disk_holds_up_counts_as_under_way_though_its_caller_went() {
    let well = Arc::new(AtomicBool::new(false));
    let slow = Wrong::Slow(JobState::Cancelled);
    let mesh = mesh_with(|config| config.max_open = 1, slow, well.clone()).await;
    let worker = mesh.worker(10, Script::ChunkOnly).await;
    let body = codec::encode(&request("a"));
    let link = mesh.link().await;
    let call = link.call(method::SUBMIT, Some(PATIENCE), &body).await;
    let mut answer = Answer::new(call.expect("called"));
    while answer.text().is_empty() {
        answer.next().await.expect("a piece");
    }
    drop(answer);
    let mut cancelled = worker.scripted.cancelled.subscribe();
    let gone = within("the caller went", cancelled.wait_for(|it| *it == 1)).await;
    gone.expect("lives");
    let refused = mesh.submit(&request("b")).await;
    assert_eq!(refused.failed().code, Code::Overloaded);
    well.store(true, Ordering::SeqCst);
    within("its end is recorded", async {
        while mesh.job(&request("a")).await.state.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
