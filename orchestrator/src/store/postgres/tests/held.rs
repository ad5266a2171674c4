//! Rows that another session holds.

use super::*;
use crate::job::JobState;
use crate::store::suite::*;
use crate::store::{Pruned, Reserved};
use std::time::{Duration, Instant};
use tether_wire::CorrelationId;

/// How often it is tried to be quicker than the lock's time: machines are slow.
const TRIES: u64 = 50;
/// Long after whatever is kept was to be forgotten.
const LATER_MS: u64 = 365 * 24 * 3_600_000;

/// Another session, inside a transaction in which it changed a row.
async fn holds(database: &Database, change: &str, job: CorrelationId) -> Link {
    let mut link = Link::open(&database.place()).await.expect("opens");
    let begin = "SET idle_in_transaction_session_timeout = 0; BEGIN";
    link.client().batch_execute(begin).await.expect("begun");
    let changed = link.client().execute(change, &[&job.0.as_slice()]).await;
    assert_eq!(changed.expect("changed"), 1);
    link
}

/// Waits until somebody waits for a lock of this database.
async fn until_somebody_waits(database: &Database) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let count = async || {
        let row = sql(database, waiting, []).await.into_iter().next();
        row.expect("a count").read("a count").u64()
    };
    while count().await == Ok(0) {
        // Polling for an event of another process; nothing depends on this time.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_row_that_somebody_holds_fails_who_wants_it_and_nobody_else_for_long() {
    let Some(database) = place().await else {
        return;
    };
    let store = database.open().await.expect("opens");
    for token in ["held", "free"] {
        reserved(&store, token).await.expect("new");
    }
    let touch = "UPDATE jobs SET updated_ms = updated_ms WHERE correlation_id = $1";
    let mut held = holds(&database, touch, id("held")).await;
    let began = Instant::now();
    let (stuck, free, new) = tokio::join!(
        store.step(holder("held", 1), dispatched(1), 200),
        store.step(holder("free", 1), dispatched(1), 200),
        store.reserve(job("new")),
    );
    // Longer than a lock is waited for, shorter than a statement may take.
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    let told = stuck.expect_err("held").to_string();
    assert!(told.contains("55P03"), "{told}");
    free.expect("taken");
    assert!(matches!(new, Ok(Reserved::New { .. })));
    held.client().batch_execute("COMMIT").await.expect("let go");
    steps(&store, "held", 1, vec![dispatched(1)]).await;
    is_whole(&database).await;
}

#[tokio::test]
async fn a_lease_is_renewed_while_what_is_to_be_written_waits() {
    let Some(database) = place().await else {
        return;
    };
    let store = database.open().await.expect("opens");
    reserved(&store, "held").await.expect("new");
    store.renew(lease(OWNER, 1_000)).await.expect("works");
    let touch = "UPDATE jobs SET updated_ms = updated_ms WHERE correlation_id = $1";
    let _held = holds(&database, touch, id("held")).await;
    for until_ms in 2_000..2_000 + TRIES {
        let renewed = tokio::select! {
            biased;
            told = store.step(holder("held", 1), dispatched(1), 200) => {
                told.expect_err("held");
                continue;
            }
            renewed = store.renew(lease(OWNER, until_ms)) => renewed,
        };
        renewed.expect("works");
        assert_eq!(store.live(until_ms).await, Ok(vec![lease(OWNER, until_ms)]));
        return;
    }
    panic!("it always waits for the writer");
}

/// Another session changes a row while it is about to be forgotten.
async fn forgotten_meanwhile(store: &PostgresStore, database: &Database, change: &str) -> Pruned {
    for n in 0..TRIES {
        let token = n.to_string();
        reserved(store, &token).await.expect("new");
        steps(store, &token, 1, vec![prune::letter()]).await;
        if change.contains("jobs") {
            assert_eq!(store.drop_dead_letter(id(&token)).await, Ok(true));
        }
        let mut held = holds(database, change, id(&token)).await;
        let mut pruning = store.prune(LATER_MS, 9);
        tokio::select! {
            biased;
            told = &mut pruning => {
                told.expect_err("the row is held");
            }
            () = until_somebody_waits(database) => {
                held.client().batch_execute("COMMIT").await.expect("changed");
                if let Ok(pruned) = pruning.await {
                    return pruned;
                }
            }
        }
        // Nothing is left for the next try.
        held.client()
            .batch_execute("ROLLBACK")
            .await
            .expect("let go");
        for _ in 0..2 {
            store.prune(LATER_MS, 9).await.expect("nobody holds it");
        }
    }
    panic!("it never came in time");
}

#[tokio::test]
async fn a_job_that_begins_anew_while_old_ones_are_forgotten_stays() {
    let Some(database) = place().await else {
        return;
    };
    let store = database.open().await.expect("opens");
    let anew = format!(
        "UPDATE jobs SET state = 'reserved', fence = fence + 1, keep_until_ms = {}
         WHERE correlation_id = $1",
        1_u64 << 60
    );
    let pruned = forgotten_meanwhile(&store, &database, &anew).await;
    assert_eq!((pruned.jobs, pruned.dead_letters), (0, 0));
    let counts = store.counts().await.expect("works");
    let open = counts.iter().find(|it| it.0 == JobState::Reserved);
    assert!(open.expect("counted").1 >= 1);
}

#[tokio::test]
async fn a_dead_letter_of_a_job_that_fails_again_while_old_ones_are_forgotten_stays() {
    let Some(database) = place().await else {
        return;
    };
    let store = database.open().await.expect("opens");
    let again = format!(
        "UPDATE dead_letters SET created_ms = 300, keep_until_ms = {} WHERE correlation_id = $1",
        1_u64 << 60
    );
    let pruned = forgotten_meanwhile(&store, &database, &again).await;
    assert_eq!(pruned.dead_letters, 0);
    assert!(!store.dead_letters(None, 9).await.expect("works").is_empty());
}
