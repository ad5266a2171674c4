use super::*;
use tether_wire::Digest;
use tether_wire::infer::Started;

const MOST: u32 = 3;

fn worker(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn piece(progress: &mut Progress) {
    let at = progress.tokens();
    progress.gave(&Chunk::new(at, vec![at], "x"), "class");
}

#[test]
fn a_request_that_gave_nothing_is_tried_a_few_times() {
    let mut progress = Progress::default();
    for n in 1..MOST {
        progress.ordered(worker(1));
        assert_eq!(progress.fails(MOST), Next::Retry, "{n}");
        assert_eq!(progress.failed(), n);
    }
    progress.ordered(worker(2));
    assert_eq!(progress.fails(MOST), Next::Stop);
    assert_eq!((progress.attempts(), progress.tried().len()), (MOST, 3));
}

#[test]
fn who_gave_something_is_no_failed_try_and_is_not_asked_next() {
    let mut progress = Progress::default();
    progress.ordered(worker(1));
    assert_eq!(progress.fails(MOST), Next::Retry);
    progress.ordered(worker(2));
    piece(&mut progress);
    piece(&mut progress);
    assert_eq!(progress.fails(MOST), Next::HandOver);
    assert_eq!(progress.failed(), 0);
    assert_eq!(progress.tried(), [worker(1), worker(2)]);
    assert_eq!(progress.transcript(), [0, 1]);
    assert_eq!(progress.numerics_class(), Some("class"));
    progress.ordered(worker(3));
    assert_eq!(progress.fails(MOST), Next::HandOver);
    assert_eq!(progress.failed(), 1);
    assert_eq!(progress.tried(), [worker(1), worker(2), worker(3)]);
    progress.forgive();
    assert_eq!(progress.tried(), [worker(3)], "it is asked last");
    progress.forgive();
    assert!(progress.tried().is_empty());
}

#[test]
fn an_answer_changes_hands_no_more_than_a_stated_number_of_times() {
    let mut progress = Progress::default();
    for n in 0..MAX_HAND_OVERS {
        progress.ordered(worker(1));
        piece(&mut progress);
        assert_eq!(progress.fails(MOST), Next::HandOver, "{n}");
    }
    progress.ordered(worker(1));
    piece(&mut progress);
    assert_eq!(progress.fails(MOST), Next::Stop);
    assert_eq!(progress.tokens(), MAX_HAND_OVERS + 1);
}

#[test]
fn tokens_without_ids_cannot_be_gone_on_from() {
    let mut progress = Progress::default();
    progress.ordered(worker(1));
    let nameless = Chunk {
        unnamed: 2,
        ..Chunk::new(0, vec![7], "x")
    };
    progress.gave(&nameless, "");
    assert_eq!(progress.tokens(), 3);
    assert!(!progress.can_go_on());
    assert_eq!(progress.fails(MOST), Next::Stop);
}

#[test]
fn a_prompt_is_counted_once_and_a_beginning_is_compared() {
    let mut progress = Progress::default();
    assert!(progress.counted(3) && progress.counted(3) && !progress.counted(4));
    piece(&mut progress);
    let mut told = Given::default();
    assert!(!progress.agrees(&told));
    told.take(&Chunk::new(0, vec![0], "x"));
    assert!(progress.agrees(&told));
}

#[test]
fn what_a_gateway_was_given_is_gone_on_from_unless_each_token_is_to_be_rated() {
    let resume = Resume {
        lost: vec![worker(9)],
        started: Some(Started {
            model: None,
            digest: Digest([1; 32]),
            seed: 1,
            numerics_class: "class".into(),
            transcript: vec![5, 6],
        }),
    };
    let mut progress = Progress::new(Some(resume.clone()), false);
    assert_eq!(progress.transcript(), [5, 6]);
    assert_eq!(progress.numerics_class(), Some("class"));
    assert!(!progress.has_begun() && progress.tokens() == 0);
    progress.ordered(worker(1));
    progress.gave(&Chunk::new(0, vec![5, 6], "xy"), "class");
    progress.gave(&Chunk::new(2, vec![7], "z"), "class");
    assert_eq!(progress.transcript(), [5, 6, 7]);
    assert_eq!(progress.tokens(), 3);
    let rated = Progress::new(Some(resume), true);
    assert!(rated.transcript().is_empty());
}
