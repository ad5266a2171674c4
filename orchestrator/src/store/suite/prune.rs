//! For how long what is kept is kept.

use super::*;
use crate::job::DeadLetter;
use crate::store::{MAX_DEAD_LETTERS, Pruned};

const KEPT: Retention = Retention {
    job_ms: 1_000,
    answer_ms: 500,
    unkeyed_ms: 50,
    dead_letter_ms: 5_000,
};

async fn open_short(place: &dyn Place) -> Arc<dyn MetadataStore> {
    let opening = Opening {
        retention: KEPT,
        ..Opening::in_folder(place.folder(), 1)
    };
    place.open_with(opening).await.expect("opens")
}

/// Failed, and a dead letter kept.
pub(crate) fn letter() -> Step {
    let letter = DeadLetter {
        tenant: acme(),
        code: "internal".into(),
        attempts: vec![],
        payload: b"the prompt".to_vec(),
    };
    Step::Failed {
        error: "x".into(),
        usage: usage(0),
        letter: Some(Arc::new(letter)),
    }
}

pub(crate) async fn old_jobs_are_forgotten_open_ones_never(place: &dyn Place) {
    let store = open_short(place).await;
    for token in ["a", "b", "open"] {
        reserved(&*store, token).await.expect("new");
    }
    for token in ["a", "b"] {
        steps(&*store, token, 1, vec![dispatched(1), failed(0)]).await;
    }
    let jobs = async |now_ms, limit| {
        let pruned = store.prune(now_ms, limit).await.expect("works");
        (pruned.jobs, pruned.may_be_more(limit))
    };
    assert_eq!(jobs(1_200, 10).await, (0, false), "not before their time");
    assert_eq!(jobs(1_201, 1).await, (1, true), "not more than asked");
    assert_eq!(jobs(u64::MAX >> 1, 10).await, (1, false));
    let counts = store.counts().await.expect("works");
    assert!(counts.contains(&(JobState::Reserved, 1)));
    assert!(counts.contains(&(JobState::Failed, 0)));
    assert_eq!(is_whole(place).await.jobs, 1);
}

/// Workers remember the job for longer than the store, and refuse a fence that is not higher.
pub(crate) async fn a_key_that_comes_again_after_its_job_was_forgotten_has_a_higher_fence(
    place: &dyn Place,
) {
    let store = open_short(place).await;
    for run in 1..4 {
        assert_eq!(reserved(&*store, "a").await, Ok(run));
        steps(&*store, "a", run, vec![failed(0)]).await;
    }
    assert_eq!(store.prune(1_201, 9).await.expect("works").jobs, 1);
    let again = NewJob {
        now_ms: 1_202,
        ..job("a")
    };
    let new = store.reserve(again).await.expect("works");
    let Reserved::New {
        fence: again,
        created_ms: 1_202,
        ..
    } = new
    else {
        panic!("as if never heard of: {new:?}")
    };
    assert!(again > fence(3), "{again}");
}

pub(crate) async fn answers_are_kept_as_long_as_their_callers_can_come_again(place: &dyn Place) {
    let store = open_short(place).await;
    for (token, keyed) in [("keyed", true), ("unkeyed", false)] {
        let job = NewJob {
            keyed,
            ..job(token)
        };
        store.reserve(job).await.expect("works");
        let answer = answered(&acme(), &[b"x"]);
        steps(&*store, token, 1, vec![dispatched(1), answer]).await;
    }
    let is_given = async |token, now_ms| {
        let answer = store.answer(acme(), id(token), now_ms).await;
        answer.expect("opens").is_some()
    };
    assert!(is_given("unkeyed", 249).await && is_given("keyed", 699).await);
    // Gone at their time, whether or not upkeep was there yet.
    assert!(!is_given("unkeyed", 250).await && !is_given("keyed", 700).await);
    let answers = async |now_ms| store.prune(now_ms, 9).await.expect("works").answers;
    assert_eq!(answers(250).await, 0);
    assert_eq!(answers(251).await, 1);
    assert_eq!(is_whole(place).await.answers, 1);
    assert_eq!(answers(701).await, 1);
    assert_eq!(read(&*store, "keyed").await.state, JobState::Done);
    assert_eq!(is_whole(place).await.answers, 0);
}

pub(crate) async fn a_job_takes_its_answer_along_and_stays_as_long_as_its_dead_letter(
    place: &dyn Place,
) {
    let store = open_short(place).await;
    reserved(&*store, "done").await.expect("new");
    let answer = answered(&acme(), &[b"x"]);
    steps(&*store, "done", 1, vec![dispatched(1), answer]).await;
    for token in ["failed", "run again"] {
        reserved(&*store, token).await.expect("new");
        steps(&*store, token, 1, vec![letter()]).await;
    }
    let pruned = store.prune(5_200, 9).await.expect("works");
    assert_eq!((pruned.jobs, pruned.dead_letters), (1, 0));
    let report = is_whole(place).await;
    assert_eq!(
        (report.jobs, report.answers, report.dead_letters),
        (2, 0, 2)
    );
    let opened = store.dead_letter(id("failed")).await.expect("opens");
    assert_eq!(opened.expect("kept").1, b"the prompt");
    // A replay, days after the job's own time was over: from its seed, under a higher fence.
    let again = NewJob {
        seed: 7,
        now_ms: 5_200,
        ..job("run again")
    };
    let anew = Reserved::New {
        fence: fence(2),
        seed: job("run again").seed,
        created_ms: NOW_MS,
    };
    assert_eq!(store.reserve(again).await, Ok(anew));
    let gone = |jobs, dead_letters| Pruned {
        jobs,
        dead_letters,
        ..Pruned::default()
    };
    assert_eq!(store.prune(5_201, 9).await, Ok(gone(0, 2)));
    assert_eq!(store.prune(5_201, 9).await, Ok(gone(1, 0)), "it kept it");
    assert!(read(&*store, "run again").await.state.is_open());
}

pub(crate) async fn of_more_dead_letters_than_are_kept_the_oldest_go(place: &dyn Place) {
    let store = open_short(place).await;
    reserved(&*store, "first").await.expect("new");
    steps(&*store, "first", 1, vec![letter()]).await;
    let another = |n: u32| {
        let params = [u128::from(n).to_be_bytes().as_slice().into(), n.into()];
        Statement::new(
            "INSERT INTO dead_letters (correlation_id, tenant, model, fence, code, reason, attempts,
                sealed, created_ms, keep_until_ms)
             VALUES ($1, 'acme', 'tiny@1.0', 1, 'x', 'x', $1, $1, 300 + $2, 1000000)",
            params,
        )
    };
    let many = (1..MAX_DEAD_LETTERS + 3).map(another).collect();
    place.behind(many).await.expect("works");
    let gone = async || store.prune(400, 2).await.expect("works").dead_letters;
    assert_eq!((gone().await, gone().await), (2, 1), "not more than asked");
    let oldest = sql(place, "SELECT min(created_ms) FROM dead_letters", []).await;
    let oldest = oldest
        .into_iter()
        .next()
        .expect("a row")
        .read("a time")
        .u64();
    assert_eq!(oldest, Ok(303));
}
