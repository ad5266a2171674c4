//! Answers that are kept, sealed: who gets them, for how long, and what becomes of one that was
//! touched.

use super::*;

async fn answered_job(store: &dyn MetadataStore, token: &str, events: &[&[u8]]) {
    reserved(store, token).await.expect("new");
    let way = vec![dispatched(1), Step::Streaming, answered(&acme(), events)];
    steps(store, token, 1, way).await;
}

async fn given(
    store: &dyn MetadataStore,
    token: &str,
    now_ms: u64,
) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
    let answer = store.answer(acme(), id(token), now_ms).await?;
    Ok(answer.map(|it| it.events()))
}

async fn sealed(place: &dyn Place, token: &str) -> Vec<u8> {
    let of = "SELECT sealed FROM results WHERE correlation_id = $1";
    let row = sql(place, of, [id(token).into()]).await.pop();
    row.expect("it is there")
        .read("sealed")
        .blob()
        .expect("bytes")
}

async fn put(place: &dyn Place, token: &str, sealed: Vec<u8>) {
    let of = "UPDATE results SET sealed = $2 WHERE correlation_id = $1";
    sql(place, of, [id(token).into(), sealed.into()]).await;
}

pub(crate) async fn an_answer_is_given_again_after_a_restart_and_only_to_its_tenant(
    place: &dyn Place,
) {
    let store = open(place).await;
    let events: [&[u8]; 3] = [b"accepted", b"the secret words", b"done"];
    answered_job(&*store, "a", &events).await;
    reserved(&*store, "b").await.expect("new");
    steps(&*store, "b", 1, vec![dispatched(1), done(1)]).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(place).await;
    let whole = given(&*store, "a", 300).await.expect("opens");
    assert_eq!(whole.expect("kept"), events);
    assert_eq!(given(&*store, "b", 300).await, Ok(None), "none was kept");
    assert_eq!(given(&*store, "none", 300).await, Ok(None));
    let other = TenantId::new("other").expect("valid");
    assert_eq!(store.answer(other, id("a"), 300).await, Ok(None));
    let lies = sealed(place, "a").await;
    assert!(!lies.windows(6).any(|it| it == b"secret"));
    assert_eq!(is_whole(place).await.answers, 1);
}

pub(crate) async fn an_answer_that_was_changed_or_moved_is_told_and_never_given(place: &dyn Place) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"mine"]).await;
    answered_job(&*store, "b", &[b"yours"]).await;
    let (mine, yours) = (sealed(place, "a").await, sealed(place, "b").await);
    let unreadable = async |what: &str| {
        let told = given(&*store, "a", 300).await.expect_err(what);
        let StoreError::Unreadable(of) = &told else {
            panic!("{what}: {told}")
        };
        assert!(of.contains(&id("a").to_hex()), "{of}");
        let report = place.check().await.expect("looked at");
        assert_eq!(report.problems.len(), 1, "{what}: {report:?}");
    };
    let mut flipped = mine.clone();
    *flipped.last_mut().expect("long") ^= 1;
    put(place, "a", flipped).await;
    unreadable("a flipped bit").await;
    put(place, "a", yours).await;
    unreadable("the answer of another job").await;
    put(place, "a", mine[..mine.len() - 1].to_vec()).await;
    unreadable("cut short").await;
    put(place, "a", mine).await;
    sql(place, "UPDATE results SET fence = fence + 1", []).await;
    let told = given(&*store, "a", 300).await;
    assert!(matches!(told, Err(StoreError::Unreadable(_))), "of a run");
    sql(place, "UPDATE results SET fence = fence - 1", []).await;
    assert_eq!(
        given(&*store, "a", 300).await,
        Ok(Some(vec![b"mine".to_vec()]))
    );
}

pub(crate) async fn a_tenant_whose_key_is_dropped_leaves_nothing_that_can_be_read(
    place: &dyn Place,
) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"before"]).await;
    assert_eq!(store.forget_key(acme()).await, Ok(true));
    assert_eq!(store.forget_key(acme()).await, Ok(false), "it is gone");
    let gone = Err(StoreError::KeyGone(acme()));
    assert_eq!(given(&*store, "a", 300).await, gone);
    // What comes later has a key of its own, under which nothing of before opens.
    answered_job(&*store, "b", &[b"after"]).await;
    assert_eq!(
        given(&*store, "b", 300).await,
        Ok(Some(vec![b"after".to_vec()]))
    );
    assert_eq!(given(&*store, "a", 300).await, gone);
    let report = is_whole(place).await;
    assert_eq!((report.answers, report.unreadable), (2, 1));
}

pub(crate) async fn a_key_that_an_operator_drops_takes_what_is_at_rest_and_nothing_else(
    place: &dyn Place,
) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"before"]).await;
    let other = TenantId::new("other").expect("valid");
    let theirs = NewJob {
        correlation: CorrelationId::derive(&other, "a"),
        tenant: other.clone(),
        ..job("a")
    };
    let holder = Holder {
        job: theirs.correlation,
        ..holder("a", 1)
    };
    store.reserve(theirs).await.expect("new");
    for step in [dispatched(1), answered(&other, &[b"theirs"])] {
        store.step(holder, step, 200).await.expect("taken");
    }
    store.close().await.expect("closes");
    drop(store);
    assert_eq!(place.forget_key(acme()).await, Ok(true));
    assert_eq!(place.forget_key(acme()).await, Ok(false), "it is gone");
    let store = open(place).await;
    let gone = Err(StoreError::KeyGone(acme()));
    assert_eq!(given(&*store, "a", 300).await, gone);
    let theirs = store.answer(other, holder.job, 300).await;
    assert_eq!(theirs.expect("opens").expect("kept").events(), [b"theirs"]);
    let report = is_whole(place).await;
    assert_eq!((report.jobs, report.tenants, report.unreadable), (2, 1, 1));
}

pub(crate) async fn a_key_that_somebody_else_dropped_seals_nothing_more(place: &dyn Place) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"before"]).await;
    sql(place, "DELETE FROM tenant_keys", []).await;
    // The job ends; what it kept would lie under a key that nobody has.
    answered_job(&*store, "b", &[b"lost"]).await;
    assert_eq!(read(&*store, "b").await.state, JobState::Done);
    assert_eq!(given(&*store, "b", 300).await, Ok(None));
    answered_job(&*store, "c", &[b"after"]).await;
    assert_eq!(
        given(&*store, "c", 300).await,
        Ok(Some(vec![b"after".to_vec()]))
    );
}

pub(crate) async fn a_tenants_key_that_was_changed_is_told_and_jobs_end_nevertheless(
    place: &dyn Place,
) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"before"]).await;
    store.close().await.expect("closes");
    drop(store);
    let row = sql(place, "SELECT wrapped FROM tenant_keys", [])
        .await
        .pop();
    let row = row.expect("a key");
    let mut wrapped = row.read("a key").blob().expect("bytes");
    *wrapped.last_mut().expect("long") ^= 1;
    let change = "UPDATE tenant_keys SET wrapped = $1";
    sql(place, change, [wrapped.into()]).await;
    let store = open(place).await;
    let told = given(&*store, "a", 300).await.expect_err("changed");
    assert!(
        told.to_string().contains("the key of tenant acme"),
        "{told}"
    );
    answered_job(&*store, "b", &[b"after"]).await;
    assert_eq!(read(&*store, "b").await.state, JobState::Done);
    assert_eq!(given(&*store, "b", 300).await, Ok(None));
}

pub(crate) async fn a_store_is_not_opened_with_another_key_or_none(place: &dyn Place) {
    let store = open(place).await;
    store.close().await.expect("closes");
    drop(store);
    let key = Opening::in_folder(place.folder(), 1).key_file;
    let right = std::fs::read(&key).expect("made with the store");
    let refused = async || {
        let opening = Opening::in_folder(place.folder(), 1);
        place.open_with(opening).await.err().expect("refused")
    };
    std::fs::remove_file(&key).expect("removed");
    assert_eq!(refused().await, StoreError::KeyMissing(key.clone()));
    crate::secret_file::make(&key, &Digest([9; 32]).to_hex()).expect("made");
    assert_eq!(refused().await, StoreError::WrongKey(key.clone()));
    std::fs::write(&key, right).expect("brought back");
    open(place).await;
}

pub(crate) async fn an_end_that_is_repeated_keeps_the_answer_of_the_first(place: &dyn Place) {
    let store = open(place).await;
    answered_job(&*store, "a", &[b"first"]).await;
    let again = answered(&acme(), &[b"second"]);
    let repeated = store.step(holder("a", 1), again, 200).await;
    assert!(matches!(repeated, Err(StoreError::Refused { .. })));
    assert_eq!(
        given(&*store, "a", 300).await,
        Ok(Some(vec![b"first".to_vec()]))
    );
}

pub(crate) async fn a_step_that_is_refused_keeps_nothing(place: &dyn Place) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    steps(&*store, "a", 1, vec![dispatched(1)]).await;
    let late = answered(&acme(), &[b"late"]);
    let refused = store.step(holder("a", 9), late, 200).await;
    refused.expect_err("another fence");
    steps(&*store, "a", 1, vec![done(1)]).await;
    assert_eq!(given(&*store, "a", 300).await, Ok(None));
    is_whole(place).await;
}
