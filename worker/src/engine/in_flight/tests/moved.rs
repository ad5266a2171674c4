//! Requests that another process takes up.

use super::*;

fn gone() -> RpcError {
    RpcError::new(Code::Unavailable, "the engine was killed by SIGKILL")
}

fn retold(position: u32) -> FromEngine {
    FromEngine::Retold {
        id: 1,
        chunk: Chunk::new(position, vec![7], "x"),
    }
}

/// A request of which so much was given, with a process that was told to keep it.
fn kept(given: usize, places: &Places) -> (InFlight, Source) {
    let mut in_flight = InFlight::new(LIMITS, CONTEXT);
    let (sink, source) = reader::channel(places.place());
    assert!(in_flight.begin(1, &task(given), sink));
    in_flight.keep(1, task(given), Tries::default());
    (in_flight, source)
}

/// Another process takes up what the one before had.
fn taken_up(before: InFlight) -> InFlight {
    let mut requests = before.over(&gone());
    let request = requests.pop().expect("one comes back");
    let mut after = InFlight::new(LIMITS, CONTEXT);
    let id = request.generate.id;
    assert!(after.begin(id, &request.generate.task, request.sink));
    after.keep(id, request.generate.task, request.tries);
    after
}

#[test]
fn of_what_nothing_was_given_nothing_is_lost_and_all_it_occupies_stays() {
    let places = Places::default();
    let (mut first, mut source) = kept(0, &places);
    first.on_message(started(1));
    let mut second = taken_up(first);
    assert_eq!(places.counts(), (0, 0));
    for message in [started(1), chunk(1, 0), done(1, 1)] {
        assert_eq!(second.on_message(message), None);
    }
    assert_eq!(source.begun.try_recv(), Ok(9));
    assert_eq!(source.given().len(), 1);
    assert_eq!(places.counts(), (0, 1), "given back once");
    end(source).expect("well");
}

#[test]
fn what_has_begun_to_be_given_fails_with_its_process() {
    let places = Places::default();
    let (mut first, source) = kept(0, &places);
    first.on_message(chunk(1, 0));
    assert!(first.over(&gone()).is_empty());
    assert_eq!(places.counts(), (0, 1));
    assert_eq!(end(source).expect_err("lost"), gone());
}

#[test]
fn nobody_takes_up_what_nobody_reads() {
    let places = Places::default();
    let (mut first, source) = kept(0, &places);
    drop(source);
    assert!(first.leave(1));
    assert!(first.over(&gone()).is_empty());
    assert_eq!(places.counts(), (1, 1));
}

#[test]
fn what_was_given_before_is_told_again_once() {
    for told in 0..=2 {
        let (mut first, mut source) = kept(2, &Places::default());
        first.on_message(started(1));
        for position in 0..told {
            first.on_message(retold(position));
        }
        let mut second = taken_up(first);
        for message in [started(1), retold(0), retold(1), chunk(1, 2), done(1, 3)] {
            assert_eq!(second.on_message(message), None);
        }
        let given: Vec<u32> = source.given().iter().map(|it| it.position).collect();
        assert_eq!(given, [0, 1, 2], "told {told} before");
        end(source).expect("well");
    }
}

#[test]
fn another_process_cannot_make_another_prompt_of_it() {
    let (mut first, mut source) = kept(0, &Places::default());
    first.on_message(started(1));
    let mut second = taken_up(first);
    let other = FromEngine::Started {
        id: 1,
        prompt_tokens: 8,
    };
    assert_eq!(second.on_message(other), Some(1), "it is cut off");
    assert_eq!(source.begun.try_recv(), Ok(9));
    let error = end(source).expect_err("not what was told");
    assert_eq!(error.code, Code::Internal);
    assert!(error.message.contains("8 tokens") && error.message.contains("counted 9"));
}

#[test]
fn another_process_cannot_tell_it_again_in_other_pieces() {
    let (mut first, source) = kept(2, &Places::default());
    first.on_message(retold(0));
    let mut second = taken_up(first);
    let both = FromEngine::Retold {
        id: 1,
        chunk: Chunk::new(0, vec![7, 7], "xx"),
    };
    assert_eq!(second.on_message(both), Some(1));
    assert_eq!(end(source).expect_err("a gap").code, Code::Internal);
}
