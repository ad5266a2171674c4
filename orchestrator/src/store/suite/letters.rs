//! Dead letters: kept with the failure, read, run again once, dropped.

use super::*;
use crate::job::{DeadLetter, FailedAttempt};

fn attempt() -> FailedAttempt {
    FailedAttempt {
        worker: NodeId([3; 32]),
        code: "internal".into(),
        message: Some("it fell on: the prompt of a".into()),
        at_ms: 150,
    }
}

/// The same without its words, which lie with the request.
fn wordless() -> FailedAttempt {
    FailedAttempt {
        message: None,
        ..attempt()
    }
}

fn letter(payload: &[u8]) -> Step {
    let letter = DeadLetter {
        tenant: acme(),
        code: "unavailable".into(),
        attempts: vec![attempt()],
        payload: payload.to_vec(),
    };
    Step::Failed {
        error: "no worker could".into(),
        usage: usage(0),
        letter: Some(Arc::new(letter)),
    }
}

async fn fail(store: &dyn MetadataStore, token: &str, run: u64, at_ms: u64) {
    assert_eq!(reserved(store, token).await, Ok(run));
    let step = letter(format!("the prompt of {token}").as_bytes());
    let taken = store.step(holder(token, run), step, at_ms).await;
    taken.expect("taken");
}

pub(crate) async fn a_job_that_failed_is_kept_with_its_request_and_what_was_tried(
    place: &dyn Place,
) {
    let store = open(place).await;
    fail(&*store, "a", 1, 200).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(place).await;
    let mut kept = StoredLetter {
        correlation: id("a"),
        tenant: acme(),
        model: "tiny@1.0".parse().expect("valid"),
        code: "unavailable".into(),
        reason: "no worker could".into(),
        attempts: vec![wordless()],
        created_ms: 200,
        keep_until_ms: 200 + Retention::default().dead_letter_ms,
        replays: 0,
        replayed_ms: None,
    };
    assert_eq!(store.dead_letters(None, 9).await, Ok(vec![kept.clone()]));
    let listed = store.dead_letter_as_listed(id("a")).await;
    assert_eq!(listed, Ok(Some(kept.clone())));
    assert_eq!(store.dead_letter_as_listed(id("b")).await, Ok(None));
    kept.attempts = vec![attempt()];
    let whole = store.dead_letter(id("a")).await.expect("opens");
    assert_eq!(whole, Some((kept, b"the prompt of a".to_vec())));
    assert_eq!(store.dead_letter(id("b")).await, Ok(None));
    assert_eq!(is_whole(place).await.dead_letters, 1);
    let lie = "SELECT attempts, sealed FROM dead_letters";
    let row = sql(place, lie, []).await.pop().expect("it is there");
    let mut row = row.read("what lies there");
    let lie = [row.blob().expect("bytes"), row.blob().expect("bytes")].concat();
    assert!(lie.windows(8).any(|it| it == b"internal"), "who and how");
    assert!(!lie.windows(6).any(|it| it == b"prompt"), "not what");
}

pub(crate) async fn a_failure_keeps_a_dead_letter_only_where_asked_and_only_when_it_counts(
    place: &dyn Place,
) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    let refused = store.step(holder("a", 2), letter(b"x"), 200).await;
    refused.expect_err("another fence");
    steps(&*store, "a", 1, vec![failed(0)]).await;
    let late = store.step(holder("a", 1), letter(b"x"), 300).await;
    late.expect_err("it failed before");
    reserved(&*store, "b").await.expect("new");
    let long = letter(&vec![0; tether_wire::infer::MAX_REQUEST_BYTES + 1]);
    steps(&*store, "b", 1, vec![long]).await;
    assert_eq!(read(&*store, "b").await.state, JobState::Failed);
    assert_eq!(store.dead_letters(None, 9).await, Ok(vec![]));
}

pub(crate) async fn dead_letters_are_listed_in_pages_the_newest_first(place: &dyn Place) {
    let store = open(place).await;
    for n in 0..7_u64 {
        // Two of each time, which their ids keep apart.
        fail(&*store, &n.to_string(), 1, 200 + n / 2).await;
    }
    let all = store.dead_letters(None, 100).await.expect("works");
    assert_eq!(all.len(), 7);
    assert!(all.is_sorted_by_key(|it| std::cmp::Reverse((it.created_ms, it.correlation))));
    let mut paged = Vec::new();
    let mut behind = None;
    loop {
        let page = store.dead_letters(behind, 3).await.expect("works");
        assert!(page.len() <= 3);
        behind = page.last().map(StoredLetter::mark);
        paged.extend(page);
        if behind.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
}

pub(crate) async fn of_several_replays_at_once_one_may_run(place: &dyn Place) {
    let store = open(place).await;
    fail(&*store, "a", 1, 200).await;
    let replay = || store.mark_replayed(id("a"), 0, 300);
    let (one, other) = tokio::join!(replay(), replay());
    assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
    let told = one.err().or(other.err()).expect("one was late").to_string();
    assert!(told.contains("run again 1 times, not 0"), "{told}");
    // It keeps its key: the job begins anew, and fails once more.
    fail(&*store, "a", 2, 400).await;
    let (kept, _) = store
        .dead_letter(id("a"))
        .await
        .expect("opens")
        .expect("kept");
    assert_eq!((kept.replays, kept.replayed_ms), (1, Some(300)));
    assert_eq!(kept.created_ms, 400);
    store.mark_replayed(id("a"), 1, 500).await.expect("may");
    let none = store.mark_replayed(id("b"), 0, 500).await;
    let told = none.expect_err("there is none").to_string();
    assert!(told.contains("no such dead letter"), "{told}");
    is_whole(place).await;
}

pub(crate) async fn a_dead_letter_is_gone_when_it_is_dropped_or_the_job_is_answered(
    place: &dyn Place,
) {
    let store = open(place).await;
    for token in ["a", "b"] {
        fail(&*store, token, 1, 200).await;
    }
    assert_eq!(store.drop_dead_letter(id("a")).await, Ok(true));
    assert_eq!(store.drop_dead_letter(id("a")).await, Ok(false));
    assert_eq!(reserved(&*store, "b").await, Ok(2));
    steps(&*store, "b", 2, vec![dispatched(1), done(1)]).await;
    assert_eq!(store.dead_letters(None, 9).await, Ok(vec![]));
}

pub(crate) async fn a_dead_letter_that_was_changed_or_whose_key_is_gone_is_told(place: &dyn Place) {
    let store = open(place).await;
    for token in ["a", "b"] {
        fail(&*store, token, 1, 200).await;
    }
    let swapped = "UPDATE dead_letters SET sealed = (SELECT d.sealed FROM dead_letters d
        WHERE d.correlation_id = $2) WHERE correlation_id = $1";
    sql(place, swapped, [id("a").into(), id("b").into()]).await;
    let told = store.dead_letter(id("a")).await;
    assert!(matches!(told, Err(StoreError::Unreadable(_))), "{told:?}");
    assert!(store.dead_letter(id("b")).await.is_ok());
    assert_eq!(store.forget_key(acme()).await, Ok(true));
    let told = store.dead_letter(id("b")).await;
    assert_eq!(told, Err(StoreError::KeyGone(acme())));
    // It is still listed, so that it can be dropped, and says who was tried.
    assert_eq!(store.dead_letters(None, 9).await.expect("works").len(), 2);
    let listed = store.dead_letter_as_listed(id("b")).await.expect("works");
    assert_eq!(listed.expect("there").attempts, [wordless()]);
    assert_eq!(store.drop_dead_letter(id("b")).await, Ok(true));
}
