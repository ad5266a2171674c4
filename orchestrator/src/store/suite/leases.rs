//! Who lives, which jobs are orphans, and who gets them.

use super::*;

fn take_over(from: Holder, by: NodeId, grounds: Grounds, now_ms: u64) -> TakeOver {
    TakeOver {
        from,
        by,
        grounds,
        model: None,
        lease_until_ms: now_ms + 9_000,
        now_ms,
    }
}

pub(crate) async fn who_renews_lives_until_its_lease_is_over_or_it_says_that_it_ends(
    place: &dyn Place,
) {
    let store = open(place).await;
    assert_eq!(store.live(0).await, Ok(vec![]));
    let (ours, others) = (lease(OWNER, 1_000), lease(OTHER, 2_000));
    store.renew(ours.clone()).await.expect("works");
    store.renew(others.clone()).await.expect("works");
    let live = async |now_ms| store.live(now_ms).await.expect("works");
    assert_eq!(live(1_000).await, [ours.clone(), others.clone()]);
    assert_eq!(live(1_001).await, std::slice::from_ref(&others));
    let renewed = Lease {
        until_ms: 3_000,
        started_ms: 7,
        ..ours
    };
    store.renew(renewed.clone()).await.expect("works");
    assert_eq!(live(2_500).await, [renewed]);
    store.retire(OWNER).await.expect("works");
    assert_eq!(live(1_500).await, [others]);
}

pub(crate) async fn open_jobs_are_ours_and_those_of_owners_who_lost_them(place: &dyn Place) {
    let store = open(place).await;
    let third = NodeId([7; 32]);
    store.renew(lease(OTHER, 5_000)).await.expect("works");
    for (token, owner, lease_until_ms) in [
        ("ours", OWNER, 10_000),
        ("of one that lives", OTHER, 10_000),
        ("held too long", OTHER, 3_000),
        ("of one that nobody saw", third, 10_000),
    ] {
        let job = NewJob {
            owner,
            lease_until_ms,
            ..job(token)
        };
        store.reserve(job).await.expect("works");
    }
    reserved(&*store, "ended").await.expect("new");
    steps(&*store, "ended", 1, vec![refused()]).await;
    let open_jobs = async |over_by_ms, limit| {
        let found = store.open_jobs(OWNER, limit, over_by_ms).await;
        let mut tokens: Vec<CorrelationId> = found
            .expect("works")
            .iter()
            .map(|it| it.holder.job)
            .collect();
        tokens.sort_unstable();
        tokens
    };
    let ids = |tokens: &[&str]| {
        let mut ids: Vec<_> = tokens.iter().map(|it| id(it)).collect();
        ids.sort_unstable();
        ids
    };
    let lost = ["ours", "of one that nobody saw"];
    assert_eq!(open_jobs(3_000, 9).await, ids(&lost));
    let later = [&lost[..], &["held too long"]].concat();
    assert_eq!(open_jobs(3_001, 9).await, ids(&later));
    let all = [&later[..], &["of one that lives"]].concat();
    assert_eq!(open_jobs(5_001, 9).await, ids(&all));
    assert_eq!(open_jobs(5_001, 2).await.len(), 2, "not more than asked");
}

pub(crate) async fn a_job_is_taken_over_as_it_stands_and_its_owner_of_before_is_fenced(
    place: &dyn Place,
) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    let way = vec![dispatched(1), dispatched(2), Step::Streaming];
    steps(&*store, "a", 1, way).await;
    store.renew(lease(OWNER, 5_000)).await.expect("works");
    let before = read(&*store, "a").await;
    let early = take_over(holder("a", 1), OTHER, Grounds::LeaseOver, 5_000);
    let told = store.take_over(early).await.expect_err("it lives");
    assert!(told.to_string().contains("the take-over"), "{told}");
    let smaller: ModelRef = "smaller@1.0".parse().expect("valid");
    let order = TakeOver {
        model: Some(smaller.clone()),
        ..take_over(holder("a", 1), OTHER, Grounds::LeaseOver, 5_001)
    };
    let taken = store.take_over(order).await.expect("its lease is over");
    let expected = Job {
        owner: OTHER,
        model: smaller,
        fence: fence(2),
        lease_until_ms: 14_001,
        updated_ms: 5_001,
        ..before
    };
    assert_eq!(taken, expected);
    assert_eq!(read(&*store, "a").await, expected);
    let late = store.step(holder("a", 1), done(3), 5_002).await;
    assert!(matches!(late, Err(StoreError::Refused { .. })));
    let new_owner = Holder {
        owner: OTHER,
        ..holder("a", 2)
    };
    let low = store.step(new_owner, dispatched(2), 5_002).await;
    low.expect_err("attempts go on from where they were");
    for step in [dispatched(3), done(3)] {
        store.step(new_owner, step, 5_003).await.expect("taken");
    }
    let over = take_over(new_owner, OWNER, Grounds::NamedLost, 5_004);
    store.take_over(over).await.expect_err("it ended");
    is_whole(place).await;
}

pub(crate) async fn an_owner_that_is_named_as_lost_loses_its_job_before_its_lease_is_over(
    place: &dyn Place,
) {
    let store = open(place).await;
    store.renew(lease(OWNER, 90_000)).await.expect("works");
    reserved(&*store, "a").await.expect("new");
    let ours = take_over(holder("a", 1), OWNER, Grounds::NamedLost, 200);
    store.take_over(ours).await.expect_err("it is ours");
    let order = take_over(holder("a", 1), OTHER, Grounds::NamedLost, 200);
    let taken = store.take_over(order).await.expect("named");
    assert_eq!((taken.state, taken.fence), (JobState::Reserved, fence(2)));
    is_whole(place).await;
}

pub(crate) async fn what_was_ours_before_a_restart_can_be_ours_again(place: &dyn Place) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    steps(&*store, "a", 1, vec![dispatched(1)]).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(place).await;
    let others = take_over(holder("a", 1), OTHER, Grounds::Ours, 200);
    store.take_over(others).await.expect_err("not theirs");
    let order = take_over(holder("a", 1), OWNER, Grounds::Ours, 200);
    let taken = store.take_over(order).await.expect("ours");
    assert_eq!((taken.attempts, taken.fence), (1, fence(2)));
    let late = store.step(holder("a", 1), done(0), 300).await;
    late.expect_err("the run of before");
    steps(&*store, "a", 2, vec![dispatched(2), done(0)]).await;
}

pub(crate) async fn of_many_that_take_over_at_once_one_gets_the_job(place: &dyn Place) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    let tries: Vec<_> = (10..40_u8)
        .map(|n| {
            let store = store.clone();
            let order = take_over(holder("a", 1), NodeId([n; 32]), Grounds::LeaseOver, 200);
            tokio::spawn(async move { store.take_over(order).await })
        })
        .collect();
    let mut winners = Vec::new();
    for one in tries {
        winners.extend(one.await.expect("ends").ok());
    }
    assert_eq!(winners.len(), 1);
    let job = read(&*store, "a").await;
    assert_eq!((job.fence, job.owner), (fence(2), winners[0].owner));
    is_whole(place).await;
}
