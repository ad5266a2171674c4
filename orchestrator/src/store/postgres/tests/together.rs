//! Several orchestrators on one database.

use super::*;
use crate::job::{Job, Step};
use crate::store::suite::*;
use crate::store::{Grounds, Holder, Repeat, Reserved, TakeOver};
use futures_util::future::join_all;
use tether_wire::{NodeId, TenantId};

/// Two orchestrators on a new database.
async fn two() -> Option<(Database, PostgresStore, PostgresStore)> {
    let database = place().await?;
    let one = database.open().await.expect("opens");
    let other = database.open().await.expect("opens as well");
    Some((database, one, other))
}

#[tokio::test]
async fn one_key_that_comes_to_two_orchestrators_at_once_is_one_job() {
    let Some((database, one, other)) = two().await else {
        return;
    };
    let of = async |store: &PostgresStore, owner, token: &str| {
        let job = crate::job::NewJob {
            owner,
            ..job(token)
        };
        store.reserve(job).await
    };
    for n in 0..60 {
        let token = format!("{n}");
        let (ours, theirs) = tokio::join!(of(&one, OWNER, &token), of(&other, OTHER, &token));
        let (ours, theirs) = (ours.expect("works"), theirs.expect("works"));
        let (winner, repeated) = match (ours, theirs) {
            (Reserved::New { .. }, repeated) => (OWNER, repeated),
            (repeated, Reserved::New { .. }) => (OTHER, repeated),
            both => panic!("{both:?}"),
        };
        let Reserved::Repeated(Repeat::StillRunning, job) = repeated else {
            panic!("{repeated:?}")
        };
        assert_eq!(job.owner, winner, "who has it is told");
    }
    assert_eq!(is_whole(&database).await.jobs, 60);
}

#[tokio::test]
async fn of_two_orchestrators_that_take_a_job_over_at_once_one_gets_it() {
    let Some((database, one, other)) = two().await else {
        return;
    };
    let third = NodeId([9; 32]);
    for n in 0..40 {
        let token = format!("{n}");
        reserved(&one, &token).await.expect("new");
        let take = async |store: &PostgresStore, by, grounds| {
            let order = TakeOver {
                from: holder(&token, 1),
                by,
                grounds,
                model: None,
                lease_until_ms: 9_000,
                now_ms: 300,
            };
            store.take_over(order).await
        };
        let (ours, theirs) = tokio::join!(
            take(&one, third, Grounds::LeaseOver),
            take(&other, OTHER, Grounds::NamedLost)
        );
        assert!(ours.is_ok() != theirs.is_ok(), "{ours:?} {theirs:?}");
        let won: Job = ours.or(theirs).expect("one won");
        let late = one.step(holder(&token, 1), dispatched(1), 400).await;
        late.expect_err("fenced");
        let holder = Holder {
            owner: won.owner,
            ..holder(&token, 2)
        };
        let step = other.step(holder, dispatched(1), 400).await;
        step.expect("whoever has the fence, by whichever connection");
    }
    is_whole(&database).await;
}

#[tokio::test]
async fn a_job_is_ended_once_however_many_believe_to_hold_it() {
    let Some((database, one, other)) = two().await else {
        return;
    };
    for n in 0..40 {
        let token = format!("{n}");
        reserved(&one, &token).await.expect("new");
        steps(&one, &token, 1, vec![dispatched(1)]).await;
        let end = async |store: &PostgresStore, words: &[u8]| {
            let end = answered(&acme(), &[words]);
            store.step(holder(&token, 1), end, 300).await
        };
        let (ours, theirs) = tokio::join!(end(&one, b"one"), end(&other, b"other"));
        assert!(ours.is_ok() != theirs.is_ok(), "{ours:?} {theirs:?}");
        let words: &[u8] = if ours.is_ok() { b"one" } else { b"other" };
        let answer = other.answer(acme(), id(&token), 400).await.expect("opens");
        assert_eq!(answer.expect("kept").events(), [words]);
    }
    assert_eq!(is_whole(&database).await.answers, 40);
}

#[tokio::test]
async fn a_tenant_of_two_orchestrators_has_one_key() {
    let Some((database, one, other)) = two().await else {
        return;
    };
    for n in 0..20 {
        let tenant = TenantId::new(format!("t{n}")).expect("valid");
        let run = async |store: &PostgresStore, token: &str| {
            let correlation = tether_wire::CorrelationId::derive(&tenant, token);
            let new = crate::job::NewJob {
                correlation,
                tenant: tenant.clone(),
                ..job(token)
            };
            store.reserve(new).await.expect("works");
            let holder = Holder {
                job: correlation,
                ..holder(token, 1)
            };
            for step in [dispatched(1), answered(&tenant, &[token.as_bytes()])] {
                store.step(holder, step, 200).await.expect("taken");
            }
            correlation
        };
        let (a, b) = tokio::join!(run(&one, "a"), run(&other, "b"));
        for (store, id, words) in [(&other, a, b"a"), (&one, b, b"b")] {
            let answer = store.answer(tenant.clone(), id, 300).await.expect("opens");
            assert_eq!(answer.expect("kept").events(), [words]);
        }
    }
    assert_eq!(is_whole(&database).await.tenants, 20);
}

#[tokio::test]
async fn orchestrators_that_start_at_once_on_an_empty_database_make_it_once() {
    let Some(database) = place().await else {
        return;
    };
    let opened = join_all((0..4).map(|_| database.open())).await;
    for store in &opened {
        assert!(store.is_ok(), "{:?}", store.as_ref().err());
    }
    let versions = sql(&database, "SELECT version FROM schema_migrations", []).await;
    assert_eq!(versions.len(), crate::store::migrations::latest() as usize);
}

#[tokio::test]
async fn an_orchestrator_without_the_key_of_the_others_is_refused_and_makes_none() {
    let Some(database) = place().await else {
        return;
    };
    let folders: Vec<_> = (0..4)
        .map(|_| tempfile::tempdir().expect("a folder"))
        .collect();
    let open = |folder: &TempDir| {
        let opening = Opening::in_folder(folder.path(), 1);
        PostgresStore::connect(database.place(), opening)
    };
    let opened = join_all(folders.iter().map(open)).await;
    let won = opened.iter().filter(|it| it.is_ok()).count();
    assert_eq!(won, 1);
    for (folder, store) in folders.iter().zip(&opened) {
        let key = Opening::in_folder(folder.path(), 1).key_file;
        match store {
            Ok(_) => assert!(key.exists()),
            Err(error) => {
                assert_eq!(*error, StoreError::KeyMissing(key.clone()));
                assert!(!key.exists(), "one of its own would be in the way");
            }
        }
    }
}

/// Groups whose operations meet in another order wait for each other; the database ends one of them,
/// whose operations then run alone.
#[tokio::test]
async fn groups_that_wait_for_each_other_all_end_well() {
    let Some((database, one, other)) = two().await else {
        return;
    };
    let tokens: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let forth = join_all(tokens.iter().map(|it| one.reserve(job(it))));
    let back = join_all(tokens.iter().rev().map(|it| other.reserve(job(it))));
    let (forth, back) = tokio::join!(forth, back);
    let new = |all: &[Result<Reserved, StoreError>]| {
        let is_new = |it: &&Result<Reserved, StoreError>| matches!(it, Ok(Reserved::New { .. }));
        all.iter().filter(is_new).count()
    };
    assert!(forth.iter().chain(&back).all(Result::is_ok), "{forth:?}");
    assert_eq!(new(&forth) + new(&back), tokens.len());
    assert_eq!(is_whole(&database).await.jobs, tokens.len());
}

#[tokio::test]
async fn an_operation_that_fails_undoes_itself_and_none_of_its_group() {
    let Some(database) = place().await else {
        return;
    };
    let store = database.open().await.expect("opens");
    let broken = Statement::new("SELECT 1 / $1", [0_u64.into()]);
    let undone = vec![
        crate::store::jobs::reserve(&job("undone"), &store.retention).swap_remove(0),
        broken,
    ];
    let (good, broken, also) = tokio::join!(
        store.reserve(job("good")),
        crate::store::database::Database::run(&store.database, undone),
        store.reserve(job("also good")),
    );
    assert!(matches!(good, Ok(Reserved::New { .. })));
    assert!(matches!(also, Ok(Reserved::New { .. })));
    let told = broken.expect_err("by zero").to_string();
    assert!(told.contains("22012"), "{told}");
    assert_eq!(store.job(id("undone")).await, Ok(None));
    let way = vec![dispatched(1), Step::Streaming];
    steps(&store, "good", 1, way).await;
    is_whole(&database).await;
}
