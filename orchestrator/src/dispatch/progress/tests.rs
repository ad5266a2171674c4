use super::*;
use tether_wire::Digest;
use tether_wire::infer::Started;

fn worker(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn piece(progress: &mut Progress) {
    let at = progress.tokens();
    progress.gave(&Chunk::new(at, vec![at], "x"), "class");
}

#[test]
fn how_an_order_failed_depends_on_what_it_and_those_before_gave() {
    let mut progress = Progress::default();
    progress.ordered(worker(1), 1);
    assert_eq!(progress.failure(), Failure::Early);
    progress.ordered(worker(2), 1);
    piece(&mut progress);
    piece(&mut progress);
    assert_eq!(progress.failure(), Failure::AfterProgress);
    assert_eq!(progress.not_now(0), [worker(1), worker(2)]);
    assert_eq!(progress.transcript(), [0, 1]);
    assert_eq!(progress.numerics_class(), Some("class"));
    progress.ordered(worker(3), 1);
    assert_eq!(progress.failure(), Failure::Between, "it gave nothing");
    assert_eq!(progress.not_now(0), [worker(1), worker(2), worker(3)]);
    progress.forgive();
    assert_eq!(progress.not_now(0), [worker(3)], "it is asked last");
    progress.forgive();
    assert!(progress.not_now(0).is_empty());
}

#[test]
fn an_answer_changes_hands_no_more_than_a_stated_number_of_times() {
    let mut progress = Progress::default();
    progress.ordered(worker(1), 1);
    piece(&mut progress);
    let tries = |hand_overs| Tries {
        attempts: 1,
        hand_overs,
    };
    progress.again(tries(MAX_HAND_OVERS - 1));
    assert!(progress.can_go_on());
    progress.again(tries(MAX_HAND_OVERS));
    assert!(!progress.can_go_on());
}

#[test]
fn a_worker_that_asked_to_be_left_alone_is_asked_again_when_its_time_comes() {
    let mut progress = Progress::default();
    for (n, until_ms) in [(1, 900), (2, 500)] {
        progress.ordered(worker(n), 1);
        progress.rests(worker(n), until_ms);
    }
    progress.ordered(worker(3), 1);
    assert_eq!(progress.rested_ms(), Some(500));
    assert_eq!(progress.not_now(499), [worker(3), worker(1), worker(2)]);
    assert_eq!(progress.not_now(500), [worker(3), worker(1)]);
    assert_eq!(progress.not_now(900), [worker(3)]);
}

#[test]
fn who_goes_on_is_the_last_that_was_asked_and_who_only_was_slower_may_be_asked_again() {
    let hedged = |goes_on, is_tried| {
        let mut progress = Progress::default();
        progress.ordered(worker(1), 1);
        progress.hedged((worker(2), 1), goes_on, is_tried);
        assert_eq!((progress.attempts(), progress.tries().attempts), (2, 2));
        piece(&mut progress);
        assert_eq!(progress.failure(), Failure::AfterProgress);
        (progress.last(), progress.not_now(0))
    };
    let (first, second) = (worker(1), worker(2));
    assert_eq!(hedged(true, true), (Some(second), vec![first, second]));
    assert_eq!(hedged(false, true), (Some(first), vec![second, first]));
    assert_eq!(hedged(false, false), (Some(first), vec![first]));
}

#[test]
fn tokens_without_ids_cannot_be_gone_on_from() {
    let mut progress = Progress::default();
    progress.ordered(worker(1), 1);
    let nameless = Chunk {
        unnamed: 2,
        ..Chunk::new(0, vec![7], "x")
    };
    progress.gave(&nameless, "");
    assert_eq!(progress.tokens(), 3);
    assert!(!progress.can_go_on());
    assert_eq!(progress.failure(), Failure::Final);
}

#[test]
fn a_prompt_is_counted_once_and_a_beginning_is_compared() {
    let mut progress = Progress::default();
    assert!(progress.counts(3) && progress.counts(4), "nothing is known");
    assert!(progress.counted(3) && progress.counted(3) && !progress.counted(4));
    assert!(progress.counts(3) && !progress.counts(4));
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
            degraded_from: None,
            digest: Digest([1; 32]),
            seed: 1,
            numerics_class: "class".into(),
            worker: Some(worker(3)),
            transcript: vec![5, 6],
        }),
    };
    let mut progress = Progress::new(Some(resume.clone()), false, 0);
    assert_eq!(progress.transcript(), [5, 6]);
    assert_eq!(progress.numerics_class(), Some("class"));
    assert!(!progress.has_begun() && progress.tokens() == 0);
    assert_eq!(progress.left_at(), Some(worker(3)), "it may be at it still");
    assert_eq!(
        progress.given_tokens(),
        2,
        "they are billed, whoever gave them"
    );
    progress.ordered(worker(1), 1);
    assert_eq!(progress.left_at(), None, "asked once, if at all");
    progress.gave(&Chunk::new(0, vec![5, 6], "xy"), "class");
    progress.gave(&Chunk::new(2, vec![7], "z"), "class");
    assert_eq!(progress.transcript(), [5, 6, 7]);
    assert_eq!(progress.tokens(), 3);
    let rated = Progress::new(Some(resume), true, 0);
    assert!(rated.transcript().is_empty());
    assert_eq!(rated.numerics_class(), Some("class"), "it goes on there");
    assert_eq!(rated.failure(), Failure::Between, "somebody reads it");
}

#[test]
fn how_long_full_workers_refuse_counts_from_the_first_until_somebody_gives_a_piece() {
    let mut progress = Progress::default();
    assert_eq!(
        (progress.refused_for(1_000), progress.refused_for(1_700)),
        (0, 700)
    );
    piece(&mut progress);
    assert_eq!(progress.refused_for(9_000), 0);
}

#[test]
fn a_worker_that_was_restarted_is_one_that_was_not_asked() {
    let mut progress = Progress::default();
    for n in 1..=3 {
        progress.ordered(worker(n), 7);
    }
    progress.forgive_restarted(|it| (*it == worker(1)).then_some(7));
    assert_eq!(
        progress.not_now(0).len(),
        3,
        "one is the same, and two are not known"
    );
    progress.forgive_restarted(|it| Some(if *it == worker(2) { 8 } else { 7 }));
    assert_eq!(progress.not_now(0), [worker(1), worker(3)]);
}
