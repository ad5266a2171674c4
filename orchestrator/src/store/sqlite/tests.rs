//! What holds for every store, on SQLite: by what a job may become, what a power cut leaves, what
//! shares a commit, what the file itself can be, and what is kept beside jobs.

mod counts;
mod durability;
mod file;
mod group_commit;
mod jobs;
mod models;

use super::*;

const OWNER: NodeId = NodeId([5; 32]);

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("s.sqlite"), 1, Box::new(|_, _| ())).expect("opens")
}

fn job(token: &str) -> NewJob {
    let tenant = TenantId::new("acme").expect("valid");
    NewJob {
        correlation: CorrelationId::derive(&tenant, token),
        tenant,
        retry_token: token.to_owned(),
        request_hash: Digest([1; 32]),
        model: "tiny@1.0".parse().expect("valid"),
        seed: u64::MAX - 3,
        owner: OWNER,
        lease_until_ms: 10_000,
        max_tokens: Some(9),
        now_ms: 100,
    }
}

fn holder(token: &str, fence: u64) -> Holder {
    Holder {
        job: job(token).correlation,
        owner: OWNER,
        fence,
    }
}

fn dispatched(attempt: u32) -> Step {
    Step::Dispatched {
        worker: NodeId([u8::try_from(attempt).expect("small"); 32]),
        digest: Digest([7; 32]),
        attempt,
    }
}

fn done(completion_tokens: u32) -> Step {
    Step::Done {
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens: 4,
            completion_tokens,
        },
    }
}

fn failed(completion_tokens: u32) -> Step {
    Step::Failed {
        error: "x".into(),
        usage: Usage {
            prompt_tokens: 0,
            completion_tokens,
        },
    }
}

async fn reserved(store: &SqliteStore, token: &str) -> Result<u64, Repeat> {
    match store.reserve(job(token)).await.expect("works") {
        Reserved::New { fence, .. } => Ok(fence),
        Reserved::Repeated(repeat, _) => Err(repeat),
    }
}

async fn steps(store: &SqliteStore, token: &str, fence: u64, steps: Vec<Step>) {
    for step in steps {
        let taken = store.step(holder(token, fence), step, 200).await;
        taken.expect("taken");
    }
}

async fn read(store: &SqliteStore, token: &str) -> Job {
    let found = store.job(job(token).correlation).await.expect("works");
    found.expect("there")
}
