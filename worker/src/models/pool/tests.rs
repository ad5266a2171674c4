//! The pool in small scenes; `processes` has those of models in several processes, `worlds` has
//! simulations with seeds.

mod processes;
mod worlds;

use super::*;

fn limits() -> Limits {
    Limits {
        memory: Amount::from(100),
        accelerators: Vec::new(),
        adapters: 2,
        idle_ms: 0,
    }
}

fn need(bytes: u64) -> Need {
    Need {
        memory: bytes.into(),
        reason: "by estimate".to_owned(),
        ..Need::default()
    }
}

fn pinned(bytes: u64) -> Need {
    Need {
        is_pinned: true,
        ..need(bytes)
    }
}

/// A pool whose models are all cold, and wished no more than asked for.
fn pool(needs: &[Need]) -> Pool {
    let mut pool = Pool::new(limits(), needs.len());
    for (model, need) in needs.iter().enumerate() {
        pool.models[model].is_wished = false;
        pool.know(model, need.clone(), 0);
    }
    pool
}

fn waits(pool: &mut Pool, model: usize, now_ms: u64) -> (LeaseId, Vec<Effect>) {
    match pool.ask(model, now_ms) {
        (Asked::Waits(lease), effects) => (lease, effects),
        other => panic!("{other:?}"),
    }
}

fn ready(pool: &mut Pool, model: usize, now_ms: u64) -> LeaseId {
    match pool.ask(model, now_ms) {
        (Asked::Ready(lease), _) => lease,
        other => panic!("{other:?}"),
    }
}

/// Loads a model, and leaves it idle.
fn load(pool: &mut Pool, model: usize, now_ms: u64) {
    let (lease, effects) = waits(pool, model, now_ms);
    assert_eq!(effects, [Effect::Load(model, 1)]);
    assert_eq!(pool.loaded(model, 0, now_ms), [Effect::Ready(lease)]);
    pool.release(lease, now_ms);
}

#[test]
fn at_the_start_pinned_models_come_first_and_the_rest_as_far_as_there_is_room() {
    let mut pool = Pool::new(limits(), 4);
    assert_eq!(pool.know(0, need(50), 0), [Effect::Load(0, 1)]);
    assert_eq!(pool.know(1, need(60), 0), [], "no room");
    assert_eq!(pool.know(2, need(40), 0), [Effect::Load(2, 1)]);
    assert_eq!(pool.know(3, need(10), 0), [Effect::Load(3, 1)]);
    let mut pool = Pool::new(limits(), 2);
    assert_eq!(pool.know(1, pinned(60), 0), [Effect::Load(1, 1)]);
    let effects = pool.know(0, need(50), 0);
    assert!(
        matches!(effects[..], [Effect::Unfit(0, Some(_))]),
        "{effects:?}"
    );
}

#[test]
fn many_who_wait_cause_one_load_and_go_on_together() {
    let mut pool = pool(&[need(50)]);
    let (first, effects) = waits(&mut pool, 0, 0);
    assert_eq!(effects, [Effect::Load(0, 1)]);
    let (second, effects) = waits(&mut pool, 0, 1);
    assert_eq!(effects, []);
    let both = [Effect::Ready(first), Effect::Ready(second)];
    assert_eq!(pool.loaded(0, 5, 6), both);
    ready(&mut pool, 0, 7);
}

#[test]
fn the_least_recently_used_goes_and_neither_what_is_used_nor_what_is_pinned() {
    let mut pool = pool(&[need(30), need(30), pinned(30), need(40)]);
    pool.loaded(2, 0, 0);
    load(&mut pool, 0, 1);
    load(&mut pool, 1, 2);
    let used = ready(&mut pool, 0, 3);
    let (lease, effects) = waits(&mut pool, 3, 4);
    assert_eq!(effects, [Effect::Unload(1)], "0 is used, 2 is pinned");
    assert_eq!(pool.unloaded(1, 5), [Effect::Load(3, 1)]);
    assert_eq!(pool.loaded(3, 0, 6), [Effect::Ready(lease)]);
    pool.release(used, 7);
    assert_eq!(pool.used().total(), 100);
}

#[test]
fn a_cold_model_gets_its_turn_under_constant_load_of_a_warm_one() {
    let mut pool = pool(&[need(60), need(60)]);
    load(&mut pool, 0, 0);
    let mut used = ready(&mut pool, 0, 1);
    let (cold, effects) = waits(&mut pool, 1, 2);
    assert_eq!(effects, []);
    // One after the other, never idle: each comes before the last one goes.
    let mut now_ms = 2;
    let late = loop {
        now_ms += 100;
        assert!(now_ms < 10_000, "it starves");
        assert!(pool.tick(now_ms).is_empty());
        match pool.ask(0, now_ms).0 {
            Asked::Ready(next) => {
                assert!(pool.release(used, now_ms).is_empty());
                used = next;
            }
            Asked::Waits(late) => break late,
            Asked::Refused(why) => panic!("{why}"),
        }
    };
    assert!(now_ms >= PATIENCE_MS);
    assert_eq!(
        pool.release(used, now_ms),
        [Effect::Unload(0)],
        "when its last ended"
    );
    assert_eq!(pool.unloaded(0, now_ms), [Effect::Load(1, 1)]);
    assert_eq!(pool.loaded(1, 5, now_ms), [Effect::Ready(cold)]);
    // And back again, for whoever came meanwhile.
    assert_eq!(pool.release(cold, now_ms), []);
    assert_eq!(pool.wakes_at_ms(now_ms), Some(now_ms + 5));
    assert_eq!(pool.tick(now_ms + 5), [Effect::Unload(1)]);
    assert_eq!(pool.unloaded(1, now_ms + 5), [Effect::Load(0, 1)]);
    assert_eq!(pool.loaded(0, 5, now_ms + 9), [Effect::Ready(late)]);
}

#[test]
fn a_drain_that_nobody_needs_any_more_is_forgotten() {
    let mut pool = pool(&[need(60), need(60)]);
    load(&mut pool, 0, 0);
    let used = ready(&mut pool, 0, 1);
    let (cold, _) = waits(&mut pool, 1, 2);
    pool.tick(PATIENCE_MS + 2);
    let (late, _) = waits(&mut pool, 0, PATIENCE_MS + 3);
    assert_eq!(pool.release(cold, PATIENCE_MS + 4), [Effect::Ready(late)]);
    assert!(pool.release(used, PATIENCE_MS + 5).is_empty());
}

#[test]
fn what_was_just_loaded_stays_for_as_long_as_its_load_took() {
    let mut pool = pool(&[need(60), need(60)]);
    let (lease, _) = waits(&mut pool, 0, 0);
    pool.loaded(0, 1_000, 1_000);
    pool.release(lease, 1_000);
    let (_, effects) = waits(&mut pool, 1, 1_001);
    assert_eq!(effects, []);
    assert_eq!(pool.tick(1_999), []);
    assert_eq!(pool.wakes_at_ms(1_999), Some(2_000));
    assert_eq!(pool.tick(2_000), [Effect::Unload(0)]);
}

#[test]
fn a_failed_load_is_told_to_all_and_not_tried_by_everyone() {
    let mut pool = pool(&[need(50)]);
    let (first, _) = waits(&mut pool, 0, 0);
    let (second, _) = waits(&mut pool, 0, 0);
    let refuse = |lease| Effect::Refuse(lease, "broken".to_owned());
    assert_eq!(
        pool.gave_up(0, "broken", 5_000, 10),
        [refuse(first), refuse(second)]
    );
    assert_eq!(pool.used().total(), 0);
    assert_eq!(pool.ask(0, 20).0, Asked::Refused("broken".to_owned()));
    assert_eq!(pool.wakes_at_ms(20), Some(5_010));
    assert_eq!(pool.tick(5_010), [Effect::Load(0, 1)], "there is room");
    assert!(pool.loaded(0, 1, 6_000).is_empty());
    ready(&mut pool, 0, 6_001);
    // One that was warm is started again by whoever watches over it.
    pool.failed(0, "crashed", 5_000, 7_000);
    assert_eq!(pool.ask(0, 7_001).0, Asked::Refused("crashed".to_owned()));
    assert_eq!(pool.used().total(), 50);
    pool.loaded(0, 1, 7_500);
    ready(&mut pool, 0, 7_501);
}

#[test]
fn what_can_never_fit_is_refused_with_the_numbers() {
    let mib = 1024 * 1024;
    let mut pool = Pool::new(
        Limits {
            memory: Amount::from(100 * mib),
            ..limits()
        },
        2,
    );
    pool.know(0, pinned(40 * mib), 0);
    let effects = pool.know(1, need(61 * mib), 0);
    let Asked::Refused(why) = pool.ask(1, 1).0 else {
        panic!("it is too big")
    };
    assert_eq!(effects, [Effect::Unfit(1, Some(why.clone()))]);
    assert_eq!(pool.tick(2), [], "it is told once");
    for part in ["61 MiB", "100 MiB", "40 MiB", "by estimate"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    assert_eq!(pool.know(1, need(60 * mib), 3), [Effect::Load(1, 1)]);
    assert_eq!(pool.used().total(), 100 * mib);
}

#[test]
fn what_a_model_once_took_keeps_others_out_and_not_the_model() {
    let once = |least, most: u64| Need {
        memory: Room {
            least: Amount::from(least),
            most: Amount::from(most),
        },
        ..need(0)
    };
    // As long as there is room for it, it is kept.
    let mut pool = pool(&[once(10, 70), need(40)]);
    load(&mut pool, 0, 0);
    assert_eq!(pool.used().total(), 70);
    let (lease, effects) = waits(&mut pool, 1, 1);
    assert_eq!(effects, [Effect::Unload(0)]);
    pool.unloaded(0, 2);
    pool.loaded(1, 0, 3);
    pool.release(lease, 3);
    // More than there is: it has all, and is not ended for what it does not take.
    pool.know(0, once(10, 2_000), 4);
    let (lease, effects) = waits(&mut pool, 0, 4);
    assert_eq!(effects, [Effect::Unload(1)]);
    assert_eq!(pool.unloaded(1, 5), [Effect::Load(0, 1)]);
    assert_eq!(pool.loaded(0, 0, 6), [Effect::Ready(lease)]);
    assert_eq!(pool.release(lease, 7), []);
    assert_eq!(pool.used().total(), 100);
    // It does take it.
    assert_eq!(pool.observed(0, 101.into(), 8), [Effect::Unload(0)]);
    // What is pinned is counted by what is certain, so that each of them has its room.
    let pin = |need| Need {
        is_pinned: true,
        ..need
    };
    let mut pool = self::pool(&[once(60, 2_000), need(1), need(1)]);
    pool.know(1, pin(once(20, 2_000)), 0);
    let effects = pool.know(2, pin(once(20, 2_000)), 0);
    assert_eq!(effects, [Effect::Load(2, 1)]);
    load(&mut pool, 0, 1);
    assert_eq!(pool.used().total(), 100);
}

#[test]
fn what_turns_out_too_big_makes_the_idle_go() {
    let mut pool = pool(&[need(30), need(30), need(30)]);
    (0..3).for_each(|model| load(&mut pool, model, model as u64));
    assert_eq!(pool.observed(2, 45.into(), 10), [Effect::Unload(0)]);
    pool.unloaded(0, 11);
    assert_eq!(pool.used().total(), 75);
}

#[test]
fn an_accelerator_has_a_budget_of_its_own_and_its_queue_holds_up_no_other() {
    let on = |device, bytes| Need {
        memory: Amount::from(5).with(device, bytes).into(),
        ..need(0)
    };
    let budgets = Limits {
        memory: Amount::new(100, [100, 100]),
        accelerators: vec!["cuda:0".to_owned(), "cuda:1".to_owned()],
        ..limits()
    };
    let mut pool = Pool::new(budgets, 4);
    let needs = [on(1, 60), on(1, 70), on(2, 70), need(60)];
    for (model, need) in needs.into_iter().enumerate() {
        pool.models[model].is_wished = false;
        pool.know(model, need, 0);
    }
    load(&mut pool, 0, 1);
    ready(&mut pool, 0, 2);
    let (_, effects) = waits(&mut pool, 1, 3);
    assert_eq!(effects, [], "the first accelerator is full, and in use");
    assert_eq!(waits(&mut pool, 2, 4).1, [Effect::Load(2, 1)]);
    assert_eq!(waits(&mut pool, 3, 5).1, [Effect::Load(3, 1)]);
    assert_eq!(pool.used(), Amount::new(70, [60, 70]));
    let why = {
        pool.know(1, on(1, 101), 6);
        let Asked::Refused(why) = pool.ask(1, 6).0 else {
            panic!("it is too big")
        };
        why
    };
    assert!(why.contains("budget of cuda:0 is"), "{why}");
}

#[test]
fn adapters_have_places_of_their_own() {
    let adapter = |bytes| Need {
        is_adapter: true,
        ..need(bytes)
    };
    let mut pool = pool(&[adapter(10), adapter(10), adapter(10), need(10)]);
    for model in [3, 0, 1] {
        load(&mut pool, model, model as u64);
    }
    let (_, effects) = waits(&mut pool, 2, 20);
    assert_eq!(
        effects,
        [Effect::Unload(0)],
        "an adapter, though 3 is older"
    );
    pool.know(
        0,
        Need {
            is_pinned: true,
            ..adapter(10)
        },
        21,
    );
    pool.know(
        1,
        Need {
            is_pinned: true,
            ..adapter(10)
        },
        21,
    );
    let Asked::Refused(why) = pool.ask(2, 22).0 else {
        panic!("no adapter can ever go")
    };
    assert!(why.contains("2 are pinned"), "{why}");
}

#[test]
fn what_nobody_uses_for_long_goes() {
    let mut pool = Pool::new(
        Limits {
            idle_ms: 1_000,
            ..limits()
        },
        2,
    );
    pool.know(0, need(10), 0);
    pool.know(1, pinned(10), 0);
    pool.loaded(0, 0, 5);
    pool.loaded(1, 0, 5);
    assert_eq!(pool.wakes_at_ms(5), Some(1_005));
    assert_eq!(pool.tick(1_005), [Effect::Unload(0)]);
    assert_eq!(pool.unloaded(0, 1_006), [], "it is not wished any more");
}
