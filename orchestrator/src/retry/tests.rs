//! Plans one at a time, and what holds of all.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

const DAY: u64 = 86_400_000;

fn early(attempts: u32, left_ms: u64) -> Situation {
    Situation {
        failure: Failure::Early,
        tries: Tries {
            attempts,
            hand_overs: 0,
        },
        left_ms,
        retry_after_ms: None,
    }
}

/// A budget that has enough.
fn rich() -> (RetrySettings, Budget) {
    let settings = RetrySettings {
        budget_least: 1_000_000,
        ..RetrySettings::default()
    };
    (settings, Budget::default())
}

fn planned(settings: &RetrySettings, situation: &Situation, seed: u64) -> Plan {
    let (_, mut budget) = rich();
    let mut rng = StdRng::seed_from_u64(seed);
    plan(settings, situation, &mut budget, 0, &mut rng)
}

fn pauses(situation: &Situation) -> Vec<u64> {
    let (settings, mut budget) = rich();
    let mut rng = StdRng::seed_from_u64(7);
    let mut draw = || match plan(&settings, situation, &mut budget, 0, &mut rng) {
        Plan::Retry { after_ms, .. } => after_ms,
        other @ Plan::GiveUp(_) => panic!("{other:?}"),
    };
    (0..5_000).map(|_| draw()).collect()
}

#[test]
fn pauses_are_spread_from_nothing_to_a_bound_that_doubles_up_to_the_cap() {
    for (attempts, longest) in [(1, 50), (2, 100)] {
        let drawn = pauses(&early(attempts, DAY));
        assert_eq!(drawn.iter().max(), Some(&longest), "after {attempts}");
        assert_eq!(drawn.iter().min(), Some(&0), "after {attempts}");
    }
    let settings = RetrySettings::default();
    let longest = [3, 4, u32::MAX].map(|attempts| longest_ms(&settings, attempts));
    assert_eq!(longest, [200, 250, 250]);
}

#[test]
fn a_request_is_given_to_three_workers_and_no_more() {
    let settings = RetrySettings::default();
    for attempts in 1..3 {
        let plan = planned(&settings, &early(attempts, DAY), 1);
        let Plan::Retry { tries, .. } = plan else {
            panic!("{plan:?}");
        };
        assert_eq!(tries.attempts, attempts + 1);
    }
    let plan = planned(&settings, &early(3, DAY), 1);
    assert_eq!(plan, Plan::GiveUp(Why::Attempts));
}

#[test]
fn what_fails_everywhere_is_not_tried_again() {
    let situation = Situation {
        failure: Failure::Final,
        ..early(1, DAY)
    };
    let plan = planned(&RetrySettings::default(), &situation, 1);
    assert_eq!(plan, Plan::GiveUp(Why::Final));
}

#[test]
fn a_worker_that_says_when_is_not_asked_before_and_never_after_the_deadline() {
    let asked = |left_ms| Situation {
        retry_after_ms: Some(700),
        ..early(1, left_ms)
    };
    let drawn = pauses(&asked(DAY));
    assert_eq!(drawn.iter().min(), Some(&700));
    assert_eq!(drawn.iter().max(), Some(&750));
    let settings = RetrySettings::default();
    let plan = planned(&settings, &asked(799), 1);
    assert_eq!(plan, Plan::GiveUp(Why::Deadline));
    assert!(pauses(&asked(800)).iter().all(|after_ms| *after_ms == 700));
}

#[test]
fn callers_are_told_of_a_wait_that_is_too_long_to_hold_them() {
    let settings = RetrySettings::default();
    let asked = |retry_after_ms| Situation {
        retry_after_ms: Some(retry_after_ms),
        ..early(1, DAY)
    };
    let waits = planned(&settings, &asked(2_000), 1);
    assert!(matches!(waits, Plan::Retry { .. }), "{waits:?}");
    let told = planned(&settings, &asked(2_001), 1);
    assert_eq!(told, Plan::GiveUp(Why::Later));
}

#[test]
fn an_answer_that_had_begun_is_not_lost_for_want_of_budget_and_tried_as_often() {
    let settings = RetrySettings {
        budget_percent: 0,
        budget_least: 0,
        ..RetrySettings::default()
    };
    let between = |attempts| Situation {
        failure: Failure::Between,
        ..early(attempts, DAY)
    };
    assert!(matches!(
        planned(&settings, &between(2), 1),
        Plan::Retry { .. }
    ));
    assert_eq!(
        planned(&settings, &between(3), 1),
        Plan::GiveUp(Why::Attempts)
    );
}

#[test]
fn an_answer_that_had_begun_is_handed_over_at_once_outside_the_budget_and_counts_anew() {
    let settings = RetrySettings {
        budget_percent: 0,
        budget_least: 0,
        ..RetrySettings::default()
    };
    let mut tries = Tries {
        attempts: 3,
        hand_overs: 0,
    };
    for n in 1..=MAX_HAND_OVERS {
        let situation = Situation {
            failure: Failure::AfterProgress,
            tries,
            ..early(0, 1_000)
        };
        let plan = planned(&settings, &situation, 1);
        tries = Tries {
            attempts: 1,
            hand_overs: n,
        };
        let after_ms = 0;
        assert_eq!(plan, Plan::Retry { after_ms, tries });
    }
    let situation = Situation {
        failure: Failure::AfterProgress,
        tries,
        ..early(0, 1_000)
    };
    let plan = planned(&settings, &situation, 1);
    assert_eq!(plan, Plan::GiveUp(Why::HandOvers));
    let early = planned(&settings, &early(1, 1_000), 1);
    assert_eq!(early, Plan::GiveUp(Why::Budget));
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Final),
        Just(Failure::Early),
        Just(Failure::Between),
        Just(Failure::AfterProgress),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_reaches_past_the_deadline_or_before_what_a_worker_said(
        failure in failure(),
        attempts in 0_u32..5,
        hand_overs in 0..=MAX_HAND_OVERS,
        left_ms in 0_u64..3_000,
        retry_after_ms in proptest::option::of(0_u64..3_000),
        seed: u64,
    ) {
        let tries = Tries { attempts, hand_overs };
        let situation = Situation { failure, tries, left_ms, retry_after_ms };
        let settings = RetrySettings::default();
        if let Plan::Retry { after_ms, tries } = planned(&settings, &situation, seed) {
            prop_assert!(after_ms + settings.least_left_ms <= left_ms);
            prop_assert!(after_ms >= retry_after_ms.unwrap_or(0));
            prop_assert!(tries.attempts <= MAX_ATTEMPTS && tries.hand_overs <= MAX_HAND_OVERS);
        }
    }
}
