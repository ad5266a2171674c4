//! Long stories by chance, and the same beats in any order. [T-LIV-1] to [T-LIV-4]

use crate::model::{Cache, Model, Step, Way};
use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::cell::RefCell;

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache::new()) };
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Direct), Just(Way::Relayed), Just(Way::Recorded)]
}

fn step() -> impl Strategy<Value = Step> {
    let n = 1..=2u8;
    prop_oneof![
        6 => (n.clone(), way()).prop_map(|(n, way)| Step::Beats(n, way)),
        1 => (n.clone(), way()).prop_map(|(n, way)| Step::Leaves(n, way)),
        1 => n.clone().prop_map(Step::Restarts),
        6 => (0..20usize, prop_oneof![Just(0), Just(i32::MIN), -6_000..6_000i32]).prop_map(|(which, ahead)| Step::Replay(which, ahead)),
        1 => n.prop_map(Step::LinkLost),
        4 => prop_oneof![0..3_000u64, 3_000..20_000u64].prop_map(Step::Wait),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_long_story_has_a_ghost(
        steps in vec(step(), 1..60),
        skews in vec(-5_000..5_000i64, 2),
    ) {
        CACHE.with_borrow_mut(|cache| {
            let mut model = Model::new(&skews);
            for at in 0..steps.len() {
                model.step(steps[at], cache);
                model.assert_no_ghost(&steps[..=at]);
                if let Step::Beats(n, Way::Direct) = steps[at] {
                    model.assert_alive(n, &steps[..=at]);
                }
            }
            cache.clear();
        });
    }

    #[test]
    fn nobody_lives_longer_the_oftener_time_is_looked_at(
        waits in vec(1_001..1_500u64, 20),
        skews in vec(1..5_000i64, 2),
    ) {
        CACHE.with_borrow_mut(|cache| {
            let (beats, again) = (Step::Beats(2, Way::Recorded), Step::Replay(0, i32::MIN));
            let mut steps = vec![Step::Forget, beats, Step::Wait(12_000), again];
            steps.extend(waits.into_iter().map(Step::Wait));
            let mut model = Model::new(&skews);
            for at in 0..steps.len() {
                model.step(steps[at], cache);
                model.assert_no_ghost(&steps[..=at]);
            }
            cache.clear();
        });
    }

    #[test]
    fn two_machines_that_were_told_the_same_in_any_order_believe_the_same(
        gaps in vec((0..6_000u64, 0..10u8, any::<bool>()), 1..10),
        order in vec(any::<prop::sample::Index>(), 30),
    ) {
        // One node's life: beats, now and then a goodbye or a new epoch.
        let (mut ms, mut epoch, mut seq) = (1, 1, 0);
        let mut made = Vec::new();
        for (gap, kind, twice) in gaps {
            ms += gap;
            seq += 1;
            let issued = i64::try_from(ms).expect("small");
            made.push(if kind == 0 { goodbye(1, epoch, seq, issued) } else { beat(1, epoch, seq, issued) });
            if kind < 2 && twice {
                (epoch, seq) = (epoch + 1, 0);
            }
        }
        let (mut one, mut other) = (Machine::new(), Machine::new());
        one.go_to(ms);
        other.go_to(ms);
        for beat in &made {
            one.relayed(beat);
        }
        for at in &order {
            other.relayed(at.get(&made));
        }
        for beat in made.iter().rev() {
            other.relayed(beat);
        }
        let view = |machine: &Machine| machine.seen(1).map(|it| {
            (it.is_live(), it.order(), it.state(), it.is_live().then(|| it.heard_mono_ms()))
        });
        prop_assert_eq!(view(&one), view(&other));
    }
}
