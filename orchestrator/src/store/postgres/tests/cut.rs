//! Connections that are cut at any byte, or hang.

use super::*;
use crate::job::{JobState, Step};
use crate::store::postgres::Place;
use crate::store::suite::*;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// What passes before connections are cut: bytes to the server, bytes from it.
#[derive(Clone, Copy, Default)]
struct Budget {
    forth: Option<usize>,
    back: Option<usize>,
}

/// Stands between a store and its server.
struct Between {
    folder: TempDir,
    budget: Arc<Mutex<Budget>>,
}

impl Between {
    fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = server.socket().file_name().expect("a name").to_owned();
        let listener = UnixListener::bind(folder.path().join(name)).expect("bound");
        let (to, budget) = (server.socket(), Arc::new(Mutex::new(Budget::default())));
        let between = Self {
            folder,
            budget: budget.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&to).await else {
                    continue;
                };
                let cut = CancellationToken::new();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(
                    from_client,
                    to_server,
                    budget.clone(),
                    true,
                    cut.clone(),
                ));
                tokio::spawn(pass(from_server, to_client, budget.clone(), false, cut));
            }
        });
        between
    }

    fn set(&self, budget: Budget) {
        *self.budget.lock().expect("whole") = budget;
    }

    fn place(&self, database: &Database) -> Place {
        let name = database.url.rsplit('=').next().expect("a name");
        Place::new(&server::url_in(self.folder.path(), name)).expect("valid")
    }
}

/// Passes bytes on until the budget of their direction is used up.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    budget: Arc<Mutex<Budget>>,
    is_forth: bool,
    cut: CancellationToken,
) {
    let _cut_with_us = cut.clone().drop_guard();
    let mut bytes = [0; 8_192];
    loop {
        let read = tokio::select! {
            () = cut.cancelled() => return,
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        if read == 0 {
            return;
        }
        let (passing, is_over) = {
            let mut budget = budget.lock().expect("whole");
            let left = if is_forth {
                &mut budget.forth
            } else {
                &mut budget.back
            };
            match left {
                None => (read, false),
                Some(left) => {
                    let passing = read.min(*left);
                    *left -= passing;
                    (passing, *left == 0)
                }
            }
        };
        if to.write_all(&bytes[..passing]).await.is_err() || is_over {
            return;
        }
    }
}

/// Takes a step over a connection that is cut, and says whether it was acknowledged.
async fn cut_step(between: &Between, store: &PostgresStore, token: &str, budget: Budget) -> bool {
    // The connection is there, and what is asked was asked on it before.
    store
        .step(holder("warm", 9), dispatched(9), 1)
        .await
        .expect_err("no such job");
    between.set(budget);
    let taken = store.step(holder(token, 1), dispatched(1), 200).await;
    between.set(Budget::default());
    match taken {
        Ok(()) => true,
        Err(StoreError::Disk(why)) => {
            assert!(why.contains("not known"), "{why}");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_at_any_byte_loses_no_step_and_takes_none_twice() {
    let (Some(database), Some(server)) = (place().await, shared_server()) else {
        return;
    };
    let direct = database.open().await.expect("opens");
    let between = Between::start(server);
    let opening = Opening::in_folder(database.folder.path(), 1);
    let store = PostgresStore::connect(between.place(&database), opening).await;
    let store = store.expect("opens");
    let forth = (1..900).step_by(9).map(|at| Budget {
        forth: Some(at),
        ..Budget::default()
    });
    let back = (1..200).step_by(2).map(|at| Budget {
        back: Some(at),
        ..Budget::default()
    });
    let (mut acknowledged, mut lost, mut unheard) = (0, 0, 0);
    for (n, budget) in forth.chain(back).enumerate() {
        let token = format!("{n}");
        reserved(&direct, &token).await.expect("new");
        let is_heard = cut_step(&between, &store, &token, budget).await;
        // Asked again, it is taken once, be it now or the first time.
        let again = async || store.step(holder(&token, 1), dispatched(1), 300).await;
        match (is_heard, until_reached(again).await) {
            (false, Ok(())) => lost += 1,
            (false, Err(StoreError::Refused { .. })) => unheard += 1,
            (true, Err(StoreError::Refused { .. })) => acknowledged += 1,
            (_, again) => panic!("{n}, heard {is_heard}: {again:?}"),
        }
        let job = read(&direct, &token).await;
        assert_eq!((job.state, job.attempts), (JobState::Dispatched, 1));
    }
    // The cuts went through all of it.
    assert!(
        acknowledged > 0 && lost > 0 && unheard > 0,
        "{acknowledged} {lost} {unheard}"
    );
    is_whole(&database).await;
}

#[tokio::test]
async fn a_server_that_answers_no_more_is_given_up_and_found_again() {
    let (Some(database), Some(server)) = (place().await, shared_server()) else {
        return;
    };
    let between = Between::start(server);
    let opening = Opening::in_folder(database.folder.path(), 1);
    let mut place = between.place(&database);
    place.patience = Duration::from_millis(300);
    let store = PostgresStore::connect(place, opening).await.expect("opens");
    reserved(&store, "a").await.expect("new");
    read(&store, "a").await;
    // A lock that somebody else holds, for longer than anybody waits.
    let mut held = Link::open(&database.place()).await.expect("opens");
    let lock = "SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE";
    held.client().batch_execute(lock).await.expect("locked");
    let told = store.step(holder("a", 1), dispatched(1), 200).await;
    let told = told.expect_err("it hangs").to_string();
    assert!(told.contains("does not answer"), "{told}");
    let told = store.job(id("a")).await.expect_err("it hangs").to_string();
    assert!(told.contains("does not answer"), "{told}");
    held.client()
        .batch_execute("ROLLBACK")
        .await
        .expect("let go");
    // Whether the first one was taken in the end is open; asked again, it is taken once.
    let again = store.step(holder("a", 1), dispatched(1), 300).await;
    assert!(
        matches!(again, Ok(()) | Err(StoreError::Refused { .. })),
        "{again:?}"
    );
    let job = read(&store, "a").await;
    assert_eq!((job.state, job.attempts), (JobState::Dispatched, 1));
    steps(&store, "a", 1, vec![Step::Streaming]).await;
}
