//! Patience one piece at a time, and what holds of any gaps.

use super::*;
use proptest::prelude::*;

const STALL_MS: u64 = 30_000;

fn after(gaps: &[u64]) -> Pace {
    let mut pace = Pace::new(STALL_MS, None);
    let mut now_ms = 5_000;
    pace.piece(now_ms);
    for gap in gaps {
        now_ms += gap;
        pace.piece(now_ms);
    }
    pace
}

#[test]
fn before_two_gaps_are_known_the_stall_timeout_holds() {
    assert_eq!(after(&[]).patience_ms(), STALL_MS);
    assert_eq!(after(&[20]).patience_ms(), STALL_MS);
    assert_eq!(after(&[20, 20]).patience_ms(), 20 * 3 * 9);
}

#[test]
fn what_an_answer_before_showed_holds_from_the_first_piece() {
    let learnt = after(&[200; 500]).learnt();
    let mut pace = Pace::new(STALL_MS, Some(learnt));
    pace.piece(0);
    assert_eq!(
        pace.patience_ms(),
        900,
        "200, three times, and half as much in doubt"
    );
    for n in 1..1_000 {
        pace.piece(10 * n);
    }
    let own = pace.patience_ms();
    assert!(own < 400, "its own count more: {own}");
}

#[test]
fn patience_is_never_less_than_a_busy_machine_needs_nor_more_than_is_configured() {
    assert_eq!(after(&[1; 500]).patience_ms(), LEAST_PATIENCE_MS);
    assert_eq!(after(&[20_000; 50]).patience_ms(), STALL_MS);
    let mut short = Pace::new(100, None);
    (0..50).for_each(|n| {
        short.piece(n);
    });
    assert_eq!(short.patience_ms(), 100);
}

#[test]
fn a_batch_does_not_let_the_pause_before_it_be_forgotten() {
    let mut gaps = vec![400];
    gaps.extend([1; 100]);
    let pace = after(&gaps);
    assert!(pace.patience_ms() > 500, "{}", pace.patience_ms());
}

#[test]
fn a_piece_that_came_after_it_was_given_up_makes_more_patient_for_a_while() {
    let mut gaps = vec![150; 300];
    let calm = after(&gaps).patience_ms();
    let mut pace = after(&gaps);
    let at = pace.last_ms.expect("begun") + pace.patience_ms();
    assert!(!pace.clone().piece(at), "in time");
    assert!(pace.piece(at + 1));
    assert!(pace.patience_ms() >= 2 * calm);
    gaps.push(calm + 1);
    gaps.extend([150; 4_000]);
    assert!(
        after(&gaps).patience_ms() < calm + calm / 4,
        "and then less so"
    );
}

#[test]
fn a_clock_that_goes_back_is_a_gap_of_nothing() {
    let mut pace = after(&[20; 50]);
    assert!(!pace.piece(0));
    assert!(pace.patience_ms() >= LEAST_PATIENCE_MS);
}

#[test]
fn a_gap_in_which_nobody_read_is_not_learnt() {
    let mut pace = after(&[20; 50]);
    let before = pace.learnt();
    pace.reads(1_000_000);
    assert!(!pace.piece(1_060_000), "no false alarm");
    assert_eq!(pace.learnt(), before);
    pace.piece(1_060_020);
    assert_ne!(pace.learnt(), before, "and the next one is");
}

#[test]
fn a_larger_prompt_may_take_longer_and_a_smaller_one_no_less() {
    let mut first = First::default();
    assert_eq!(first.patience_ms(100), None);
    for _ in 0..60 {
        first.add(200, 100, 60_000);
    }
    let known = first.patience_ms(100).expect("known");
    assert!((600..900).contains(&known), "{known}");
    assert_eq!(first.patience_ms(10), Some(known));
    let larger = first.patience_ms(1_000).expect("known");
    assert!((10 * known - 10..=10 * known).contains(&larger), "{larger}");
    first.add(4_000, 100, 60_000);
    assert!(
        first.patience_ms(100).expect("known") >= 2 * 4_000,
        "it was wrong"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patience_is_within_its_bounds_and_beyond_the_longest_gap_of_late(
        gaps in proptest::collection::vec(0_u64..40_000, 2..200),
    ) {
        let pace = after(&gaps);
        let patience_ms = pace.patience_ms();
        prop_assert!((LEAST_PATIENCE_MS..=STALL_MS).contains(&patience_ms));
        let last = gaps[gaps.len() - 1];
        prop_assert!(patience_ms >= last.min(STALL_MS));
    }

    #[test]
    fn more_regular_gaps_make_less_patient_never_more(
        gap in 1_u64..1_000,
        count in 2_usize..200,
    ) {
        let few = after(&vec![gap; count]).patience_ms();
        let many = after(&vec![gap; count * 2]).patience_ms();
        prop_assert!(many <= few);
    }
}
