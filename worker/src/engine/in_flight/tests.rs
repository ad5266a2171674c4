use super::*;
use crate::engine::protocol::MAX_WORDS_BYTES;
use crate::engine::reader::{
    self, Hold, MAX_CHUNK_BYTES, MAX_WAITING_BYTES, MAX_WAITING_CHUNKS, Source,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tether_wire::infer::{CallDelta, Finish, Input, Sampling};

const CONTEXT: u32 = 8_192;
const LIMITS: StepLimits = StepLimits { first: 5, next: 2 };

/// Counts who is leaving and who has left.
#[derive(Clone, Debug, Default)]
struct Places {
    leaving: Arc<AtomicU32>,
    left: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Place(Places);

impl Hold for Place {
    fn leaving(&mut self) {
        self.0.leaving.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::SeqCst);
    }
}

impl Places {
    fn place(&self) -> Box<dyn Hold> {
        Box::new(Place(self.clone()))
    }

    fn counts(&self) -> (u32, u32) {
        let count = |n: &AtomicU32| n.load(Ordering::SeqCst);
        (count(&self.leaving), count(&self.left))
    }
}

fn started(id: u64) -> FromEngine {
    FromEngine::Started {
        id,
        prompt_tokens: 9,
    }
}

fn chunk(id: u64, position: u32) -> FromEngine {
    FromEngine::Chunk {
        id,
        chunk: Chunk::new(position, vec![7], "x"),
    }
}

fn done(id: u64, completion_tokens: u32) -> FromEngine {
    done_with(id, 9, completion_tokens)
}

fn done_with(id: u64, prompt_tokens: u32, completion_tokens: u32) -> FromEngine {
    FromEngine::Done {
        id,
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens,
            completion_tokens,
        },
        prefill_ms: 0,
        decode_ms: 0,
    }
}

/// A task of which so many tokens were given.
fn task(given: usize) -> Task {
    let input = Input::Text("x".repeat(100));
    Task {
        transcript: vec![7; given],
        ..Task::new(input, Sampling::default())
    }
}

fn begin_at(in_flight: &mut InFlight, id: u64, places: &Places) -> Source {
    let (sink, source) = reader::channel(places.place());
    assert!(in_flight.begin(id, &task(0), sink));
    source
}

fn begin(in_flight: &mut InFlight, id: u64) -> Source {
    begin_at(in_flight, id, &Places::default())
}

fn end(mut source: Source) -> Result<EngineDone, RpcError> {
    source.end.try_recv().expect("ended")
}

#[test]
fn a_place_is_given_back_when_the_engine_let_go_and_not_when_the_reader_goes() {
    for last in [done(1, 1), FromEngine::Cancelled { id: 1 }] {
        let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
        drop(begin_at(&mut in_flight, 1, &places));
        assert!(in_flight.leave(1));
        assert!(!in_flight.leave(1), "the engine is told once");
        assert_eq!(in_flight.on_message(chunk(1, 0)), None);
        assert_eq!(places.counts(), (1, 0));
        assert_eq!(in_flight.awaited(), 0);
        assert_eq!(in_flight.on_message(last), None);
        assert_eq!(places.counts(), (1, 1));
    }
}

#[test]
fn a_wish_to_cancel_that_crosses_the_end_gives_the_place_back_once() {
    let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
    let source = begin_at(&mut in_flight, 1, &places);
    in_flight.on_message(done(1, 0));
    assert_eq!(places.counts(), (0, 1));
    assert!(!in_flight.leave(1), "the engine has said all about it");
    in_flight.on_message(FromEngine::Cancelled { id: 1 });
    assert_eq!(places.counts(), (0, 1));
    end(source).expect("well");
}

#[test]
fn a_request_that_its_reader_left_before_the_engine_heard_of_it_never_gets_there() {
    let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
    let (sink, source) = reader::channel(places.place());
    drop(source);
    assert!(!in_flight.leave(1), "the wish to cancel came first");
    assert!(!in_flight.begin(1, &task(0), sink));
    assert_eq!(places.counts(), (0, 1));
}

#[test]
fn with_the_engine_every_place_is_free_whoever_reads() {
    let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
    let awaited = begin_at(&mut in_flight, 1, &places);
    drop(begin_at(&mut in_flight, 2, &places));
    in_flight.leave(2);
    in_flight.fail_all(&RpcError::new(Code::Unavailable, "gone"));
    assert_eq!(places.counts(), (1, 2));
    assert_eq!(end(awaited).expect_err("gone").code, Code::Unavailable);
}

#[test]
fn who_learns_of_an_end_finds_the_place_free() {
    let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
    let source = begin_at(&mut in_flight, 1, &places);
    let seen = places.clone();
    let waiting = std::thread::spawn(move || {
        let end = source.end.blocking_recv();
        (end.expect("told").is_ok(), seen.counts())
    });
    in_flight.on_message(done(1, 0));
    assert_eq!(waiting.join().expect("ends"), (true, (0, 1)));
}

#[test]
fn a_reader_that_is_too_slow_is_cut_off_and_its_neighbour_is_not() {
    let (mut in_flight, places) = (InFlight::new(LIMITS, CONTEXT), Places::default());
    let mut slow = begin_at(&mut in_flight, 1, &places);
    let quick = begin(&mut in_flight, 2);
    let limit = u32::try_from(MAX_WAITING_CHUNKS).expect("small");
    for position in 0..limit {
        assert_eq!(in_flight.on_message(chunk(1, position)), None);
    }
    assert_eq!(in_flight.on_message(chunk(1, limit)), Some(1));
    assert_eq!(in_flight.on_message(chunk(2, 0)), None);
    assert_eq!(in_flight.on_message(chunk(1, limit + 1)), None, "leaving");
    let delivered = slow.given().len();
    assert_eq!(delivered, MAX_WAITING_CHUNKS, "it stays delivered");
    assert_eq!(end(slow).expect_err("cut off").code, Code::Overloaded);
    assert_eq!(in_flight.awaited(), 1);
    assert_eq!(places.counts(), (1, 0), "the engine still has it");
    in_flight.on_message(FromEngine::Cancelled { id: 1 });
    assert_eq!(places.counts(), (1, 1));
    drop(quick);
}

#[test]
fn a_reader_that_is_gone_is_noticed_at_the_next_chunk() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    drop(begin(&mut in_flight, 1));
    assert_eq!(in_flight.on_message(chunk(1, 0)), Some(1));
    assert!(!in_flight.leave(1));
    let _other = begin(&mut in_flight, 2);
    assert!(in_flight.leave(2));
}

#[test]
fn an_answer_that_nobody_asked_to_cancel_does_not_end_well() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let source = begin(&mut in_flight, 1);
    in_flight.on_message(FromEngine::Cancelled { id: 1 });
    assert_eq!(end(source).expect_err("no end").code, Code::Internal);
}

#[test]
fn the_time_for_the_first_token_counts_from_the_turn() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let mut source = begin(&mut in_flight, 1);
    for _ in 0..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    assert_eq!(in_flight.on_message(started(1)), None);
    assert_eq!(source.begun.try_recv(), Ok(9));
    for _ in 0..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    assert!(in_flight.tick().is_stuck);
}

#[test]
fn who_comes_after_a_cancelled_request_has_all_its_time() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    drop(begin(&mut in_flight, 1));
    in_flight.on_message(started(1));
    in_flight.leave(1);
    for _ in 0..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    in_flight.on_message(FromEngine::Cancelled { id: 1 });
    let _next = begin(&mut in_flight, 2);
    for _ in 0..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
}

#[test]
fn an_engine_that_never_lets_go_is_stuck_as_long_after_its_last_sign_as_any() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    drop(begin(&mut in_flight, 1));
    in_flight.on_message(started(1));
    assert_eq!(in_flight.tick(), Overdue::default());
    in_flight.leave(1);
    for _ in 1..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    let overdue = in_flight.tick();
    assert!(overdue.is_stuck && overdue.cancel.is_empty());
}

#[test]
fn an_engine_that_keeps_one_it_should_not_goes_on_while_others_are_answered() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    drop(begin(&mut in_flight, 1));
    in_flight.on_message(chunk(1, 0));
    let _fed = begin(&mut in_flight, 2);
    for position in 0..10 {
        in_flight.on_message(chunk(2, position));
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    in_flight.on_message(done(2, 10));
    assert!(in_flight.tick().is_stuck, "nothing is lost with it now");
}

#[test]
fn a_gap_in_an_answer_is_an_error_and_never_passed_on() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let mut source = begin(&mut in_flight, 1);
    assert_eq!(in_flight.on_message(chunk(1, 0)), None);
    assert_eq!(in_flight.on_message(chunk(1, 2)), Some(1));
    assert_eq!(source.given().len(), 1);
    assert_eq!(end(source).expect_err("gap").code, Code::Internal);
}

#[test]
fn one_starved_answer_is_cancelled_and_a_stuck_engine_is_told_apart() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let starved = begin(&mut in_flight, 1);
    let _fed = begin(&mut in_flight, 2);
    in_flight.on_message(chunk(1, 0));
    let mut overdue = Overdue::default();
    for position in 0..3 {
        in_flight.on_message(chunk(2, position));
        overdue = in_flight.tick();
    }
    assert_eq!(overdue.cancel, [1]);
    assert!(!overdue.is_stuck, "its neighbour makes progress");
    assert_eq!(end(starved).expect_err("late").code, Code::Unavailable);

    assert_eq!(in_flight.tick(), Overdue::default());
    let overdue = in_flight.tick();
    assert_eq!(overdue.cancel, [2]);
    assert!(overdue.is_stuck, "nobody makes progress");
}

#[test]
fn the_first_token_has_more_time_and_idleness_counts_for_nothing() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    for _ in 0..100 {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    let _reading = begin(&mut in_flight, 1);
    for _ in 0..LIMITS.first {
        assert_eq!(in_flight.tick(), Overdue::default());
    }
    assert!(in_flight.tick().is_stuck);
}

/// [T-INF-11]
#[test]
fn what_was_given_before_comes_first_and_is_no_more_than_was_given() {
    let retold = |position| FromEngine::Retold {
        id: 1,
        chunk: Chunk::new(position, vec![7], "x"),
    };
    let begun = || {
        let mut in_flight = InFlight::new(LIMITS, CONTEXT);
        let (sink, source) = reader::channel(Places::default().place());
        assert!(in_flight.begin(1, &task(2), sink));
        in_flight.on_message(started(1));
        (in_flight, source)
    };
    let (mut in_flight, mut source) = begun();
    for message in [retold(0), retold(1), chunk(1, 2), done(1, 3)] {
        assert_eq!(in_flight.on_message(message), None);
    }
    let positions: Vec<_> = source.given().iter().map(|it| it.position).collect();
    assert_eq!(positions, [0, 1, 2]);
    end(source).expect("well");
    for wrong in [vec![retold(1)], vec![retold(0), retold(1), retold(2)]] {
        let (mut in_flight, source) = begun();
        let cut_off = wrong.into_iter().filter_map(|it| in_flight.on_message(it));
        assert_eq!(cut_off.collect::<Vec<_>>(), [1], "it is told to stop");
        assert_eq!(end(source).expect_err("wrong").code, Code::Internal);
    }
}

#[test]
fn an_engine_that_was_taken_over_fills_no_memory_and_is_no_alibi_for_itself() {
    let text = |bytes: usize| Chunk::new(0, Vec::new(), "x".repeat(bytes));
    let chunk = |chunk| FromEngine::Chunk { id: 1, chunk };
    let retold = |chunk| FromEngine::Retold { id: 1, chunk };
    let refused = [
        chunk(text(MAX_CHUNK_BYTES)),
        chunk(text(0)),
        retold(text(0)),
        retold(text(1)),
        chunk(Chunk {
            calls: vec![CallDelta::default(); 50_000],
            ..text(0)
        }),
    ];
    for message in refused {
        let mut in_flight = InFlight::new(LIMITS, CONTEXT);
        let source = begin(&mut in_flight, 1);
        assert_eq!(in_flight.on_message(message.clone()), Some(1));
        assert_eq!(end(source).expect_err("wrong").code, Code::Internal);
    }
    // What it may say, said for ever, is no progress.
    for message in [started(1), FromEngine::Replayed { id: 1 }, chunk(text(1))] {
        let mut in_flight = InFlight::new(LIMITS, CONTEXT);
        let mut source = begin(&mut in_flight, 1);
        let mut overdue = Overdue::default();
        for _ in 0..2 * LIMITS.first {
            assert_eq!(in_flight.on_message(message.clone()), None);
            overdue = in_flight.tick();
            if overdue.is_stuck {
                break;
            }
            source.given();
        }
        assert!(overdue.is_stuck, "{message:?}");
    }
}

#[test]
fn a_reader_that_waits_for_its_turn_reads_when_the_first_piece_comes() {
    let pieces = [
        chunk(1, 1),
        FromEngine::Retold {
            id: 1,
            chunk: Chunk::new(0, vec![7], "x"),
        },
    ];
    for piece in pieces {
        let mut in_flight = InFlight::new(LIMITS, CONTEXT);
        let (sink, mut source) = reader::channel(Places::default().place());
        assert!(in_flight.begin(1, &task(1), sink));
        assert_eq!(in_flight.on_message(piece), None);
        let turn = source.begun.try_recv().expect_err("nobody said how long");
        assert_eq!(turn, tokio::sync::oneshot::error::TryRecvError::Closed);
    }
}

#[test]
fn a_reader_that_leaves_much_unread_is_cut_off_before_it_is_many_pieces() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let mut source = begin(&mut in_flight, 1);
    let large = |position| FromEngine::Chunk {
        id: 1,
        chunk: Chunk::new(position, vec![7], "x".repeat(100_000)),
    };
    let cut_off = (0..100).find(|position| in_flight.on_message(large(*position)).is_some());
    let waiting = source.given();
    assert_eq!(cut_off.map(|it| it as usize), Some(waiting.len()));
    let bytes: usize = waiting.iter().map(Chunk::bytes).sum();
    assert!(bytes > MAX_WAITING_BYTES - 200_000 && bytes < MAX_WAITING_BYTES);
    assert_eq!(end(source).expect_err("cut off").code, Code::Overloaded);
}

#[test]
fn what_an_engine_says_of_a_failure_is_cut() {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let source = begin(&mut in_flight, 1);
    let error = RpcError::new(Code::Invalid, "é".repeat(100_000)).with_param("x".repeat(100_000));
    in_flight.on_message(FromEngine::Failed { id: 1, error });
    let error = end(source).expect_err("failed");
    assert_eq!(error.code, Code::Invalid);
    assert_eq!(error.message.len(), MAX_WORDS_BYTES);
    assert_eq!(error.param.map(|it| it.len()), Some(MAX_WORDS_BYTES));
}

/// Tenants are billed by these.
#[test]
fn counts_that_cannot_be_true_fail_the_answer() {
    let said = |prompt_tokens| FromEngine::Started {
        id: 1,
        prompt_tokens,
    };
    let most = 100 + 64 + 4_096;
    let tell = |messages: &[FromEngine]| {
        let mut in_flight = InFlight::new(LIMITS, CONTEXT);
        let (sink, source) = reader::channel(Places::default().place());
        let mut task = task(0);
        task.sampling.max_tokens = Some(2);
        assert!(in_flight.begin(1, &task, sink));
        for message in messages {
            in_flight.on_message(message.clone());
        }
        end(source)
    };
    for right in [
        vec![said(most), chunk(1, 0), done_with(1, most, 1)],
        vec![chunk(1, 0), chunk(1, 1), done_with(1, most, 2)],
    ] {
        tell(&right).expect("well");
    }
    for wrong in [
        vec![said(most + 1)],
        vec![said(u32::MAX)],
        vec![done_with(1, most + 1, 0)],
        vec![said(9), done_with(1, 8, 0)],
        vec![said(9), chunk(1, 0), done_with(1, 9, 2)],
        vec![chunk(1, 0), chunk(1, 1), chunk(1, 2)],
    ] {
        let error = tell(&wrong).expect_err("wrong");
        assert_eq!(error.code, Code::Internal, "{wrong:?}");
    }
}

#[test]
fn without_a_limit_the_context_is_the_limit() {
    let mut in_flight = InFlight::new(LIMITS, 3);
    let source = begin(&mut in_flight, 1);
    let cut_off = (0..9).find(|position| in_flight.on_message(chunk(1, *position)).is_some());
    assert_eq!(cut_off, Some(3));
    assert_eq!(end(source).expect_err("too many").code, Code::Internal);
    let source = begin(&mut in_flight, 2);
    let started = FromEngine::Started {
        id: 2,
        prompt_tokens: 4,
    };
    assert_eq!(in_flight.on_message(started), Some(2));
    assert_eq!(end(source).expect_err("too many").code, Code::Internal);
}

mod moved;
