use super::*;
use futures_util::FutureExt;

fn event(n: usize) -> Vec<u8> {
    vec![u8::try_from(n % 256).expect("less"); 1_000]
}

/// What comes at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

#[test]
fn whoever_joins_reads_from_the_first_event_on() {
    let (log, mut first) = AnswerLog::new(Held::default());
    for n in 0..3 {
        now(log.append(&event(n))).expect("room").expect("short");
        assert_eq!(
            *now(first.next())
                .expect("there")
                .expect("well")
                .expect("one"),
            *event(n)
        );
    }
    let mut second = log.join().expect("open");
    log.end(Ok(()));
    log.end(Err(RpcError::new(Code::Internal, "late")));
    for n in 0..3 {
        assert_eq!(
            *now(second.next())
                .expect("there")
                .expect("well")
                .expect("one"),
            *event(n)
        );
    }
    for reader in [&mut first, &mut second] {
        assert_eq!(now(reader.next()), Some(Ok(None)));
        assert_eq!(now(reader.next()), Some(Ok(None)), "and again");
    }
}

#[test]
fn the_quickest_reader_holds_the_run_back_and_no_slower_one_does() {
    let held = Held::default();
    let (log, mut quick) = AnswerLog::new(held.clone());
    let slow = log.join().expect("open");
    let mut appended = 0;
    while now(log.append(&event(0))).is_some() {
        appended += 1;
    }
    let fits = WINDOW_BYTES / (1_000 + EVENT_BYTES) + 1;
    assert_eq!(appended, fits);
    for _ in 0..10 {
        now(quick.next()).expect("there").expect("well");
        now(log.append(&event(1)))
            .expect("room again")
            .expect("short");
    }
    assert!(now(log.append(&event(1))).is_none());
    assert_eq!(held.bytes(), (fits + 10) * (1_000 + EVENT_BYTES));
    drop((slow, quick));
    now(log.append(&event(2)))
        .expect("nobody to wait for")
        .expect("short");
    drop(log);
    assert_eq!(held.bytes(), 0);
}

#[tokio::test]
async fn a_run_that_is_held_back_goes_on_as_soon_as_somebody_reads() {
    let (log, mut reader) = AnswerLog::new(Held::default());
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..1_000 {
                log.append(&event(n)).await.expect("short");
            }
            log.end(Ok(()));
        }
    });
    let mut read = 0;
    while let Some(got) = reader.next().await.expect("well") {
        assert_eq!(*got, *event(read));
        read += 1;
    }
    assert_eq!(read, 1_000);
    writer.await.expect("it lives");
}

#[test]
fn the_last_who_leaves_ends_it_and_nobody_joins_after() {
    let (log, first) = AnswerLog::new(Held::default());
    let second = log.join().expect("open");
    drop(first);
    assert!(now(log.abandoned()).is_none());
    drop(second);
    assert!(now(log.abandoned()).is_some() && log.join().is_none());
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let (log, mut reader) = AnswerLog::new(Held::default());
    let large = vec![0; 1024 * 1024];
    let mut appended = 0;
    while let Some(Ok(())) = now(log.append(&large)) {
        now(reader.next()).expect("there").expect("well");
        appended += 1;
    }
    let most_bytes = MAX_LOG_BYTES;
    assert_eq!(now(log.append(&large)), Some(Err(TooLong { most_bytes })));
    assert_eq!(appended, MAX_LOG_BYTES / large.len() - 1);
}

#[test]
fn an_error_is_told_to_all() {
    let (log, mut reader) = AnswerLog::new(Held::default());
    let error = RpcError::new(Code::Unavailable, "gone");
    log.end(Err(error.clone()));
    let mut late = log.join().expect("still there");
    assert_eq!(now(reader.next()), Some(Err(error.clone())));
    assert_eq!(now(late.next()), Some(Err(error)));
}

#[test]
fn where_all_answers_are_too_long_together_the_longest_end_and_short_ones_go_on() {
    let size = 1_000 + EVENT_BYTES;
    let held = Held::at_most(40 * size);
    let (long, mut reader) = AnswerLog::new(held.clone());
    for n in 0..35 {
        now(long.append(&event(n))).expect("room").expect("short");
        now(reader.next()).expect("there").expect("well");
    }
    let short: Vec<_> = (0..3).map(|_| AnswerLog::new(held.clone())).collect();
    for (log, _reader) in &short {
        for n in 0..2 {
            now(log.append(&event(n))).expect("room").expect("short");
        }
    }
    assert!(held.is_over() && held.bytes() == 41 * size);
    // Each of four may have ten.
    let too_long = TooLong {
        most_bytes: 10 * size,
    };
    assert_eq!(now(long.append(&event(35))), Some(Err(too_long)));
    long.end(Ok(()));
    let told = now(reader.next()).expect("there").expect_err("cut short");
    assert_eq!(told.code, Code::Unavailable);
    for (log, _reader) in &short {
        for n in 2..10 {
            now(log.append(&event(n))).expect("room").expect("short");
        }
        assert_eq!(now(log.append(&event(10))), Some(Err(too_long)));
    }
    assert!(held.bytes() < 2 * 40 * size);
    drop((long, reader));
    assert!(!held.is_over());
    now(short[0].0.append(&event(10)))
        .expect("room")
        .expect("again");
    drop(short);
    assert_eq!(held.bytes(), 0);
}
