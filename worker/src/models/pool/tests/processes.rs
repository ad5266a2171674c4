//! Models in several processes.

use super::*;

/// One process of it takes so much, and more than one is of use.
fn divided(bytes: u64) -> Need {
    Need {
        processes: Processes::UpTo(4),
        ..need(bytes)
    }
}

#[test]
fn further_processes_take_what_no_other_model_needs() {
    // Alone it has all that is of use.
    let mut alone = pool(&[divided(20)]);
    assert_eq!(waits(&mut alone, 0, 0).1, [Effect::Load(0, 4)]);
    assert_eq!(alone.used().total(), 80);
    // The other one has its room, loaded or not, and is divided no more than is left.
    let mut pool = pool(&[divided(20), divided(45)]);
    assert_eq!(waits(&mut pool, 0, 0).1, [Effect::Load(0, 2)]);
    assert_eq!(waits(&mut pool, 1, 0).1, [Effect::Load(1, 1)]);
    // Nor has any more than an equal share, for whoever comes later.
    let mut pool = super::pool(&[divided(20), need(5)]);
    assert_eq!(waits(&mut pool, 0, 0).1, [Effect::Load(0, 2)]);
}

#[test]
fn a_pinned_model_leaves_a_small_one_its_room_and_the_small_one_is_divided_less() {
    let mib = 1024 * 1024;
    let budget = Limits {
        memory: Amount::from(420 * mib),
        ..limits()
    };
    let small = || divided(105 * mib);
    let large = |is_pinned| Need {
        is_pinned,
        ..divided(237 * mib)
    };
    let mut pool = Pool::new(budget.clone(), 2);
    assert_eq!(pool.know(0, large(true), 0), [Effect::Load(0, 1)]);
    assert_eq!(pool.know(1, small(), 0), [Effect::Load(1, 1)]);
    assert_eq!(pool.used().total(), 342 * mib);
    // The small one was there first, and gives back what it has beyond its need.
    for is_pinned in [true, false] {
        let mut pool = Pool::new(budget.clone(), 2);
        assert_eq!(pool.know(1, small(), 0), [Effect::Load(1, 2)]);
        pool.loaded(1, 0, 1);
        let effects = pool.know(0, large(is_pinned), 2);
        let lease = if is_pinned {
            assert_eq!(effects, [Effect::Unload(1)]);
            None
        } else {
            let (lease, effects) = waits(&mut pool, 0, 2);
            assert_eq!(effects, [Effect::Unload(1)]);
            Some(lease)
        };
        let effects = pool.unloaded(1, 3);
        assert!(effects.contains(&Effect::Load(0, 1)), "{effects:?}");
        let effects = [effects, pool.loaded(0, 0, 4)].concat();
        assert!(effects.contains(&Effect::Load(1, 1)), "{effects:?}");
        assert!(lease.is_none_or(|it| effects.contains(&Effect::Ready(it))));
    }
}

#[test]
fn processes_that_are_given_back_first_end_what_they_are_doing() {
    let pin = |need| Need {
        is_pinned: true,
        ..need
    };
    let mut pool = pool(&[divided(20), divided(10), need(25)]);
    // What is asked for most is pinned, and in three processes.
    pool.limits.memory = Amount::from(180);
    assert_eq!(pool.know(0, pin(divided(20)), 0), [Effect::Load(0, 3)]);
    pool.loaded(0, 0, 0);
    assert_eq!(waits(&mut pool, 1, 1).1, [Effect::Load(1, 4)]);
    let used = ready(&mut pool, 0, 2);
    // More than anybody thought: what it needs is there, when the copies are gone.
    let effects = pool.know(2, need(130), 3);
    assert_eq!(effects, []);
    let (cold, effects) = waits(&mut pool, 2, 4);
    assert_eq!(effects, [], "one is used, and the other is being loaded");
    let lease = pool.loaded(1, 0, 5);
    let [Effect::Ready(lease)] = lease[..] else {
        panic!("{lease:?}")
    };
    assert_eq!(pool.release(lease, 6), [Effect::Unload(1)]);
    pool.unloaded(1, 7);
    pool.tick(PATIENCE_MS + 4);
    assert_eq!(pool.release(used, PATIENCE_MS + 5), [Effect::Unload(0)]);
    let effects = pool.unloaded(0, PATIENCE_MS + 6);
    let all = [Effect::Load(0, 2), Effect::Load(2, 1), Effect::Load(1, 1)];
    assert_eq!(effects, all);
    let effects = pool.loaded(2, 0, PATIENCE_MS + 7);
    assert_eq!(effects, [Effect::Ready(cold)]);
}

#[test]
fn who_grew_by_its_further_processes_sends_away_nobody_else() {
    let mut pool = pool(&[divided(20), need(30)]);
    load_into(&mut pool, 0, 2);
    load_into(&mut pool, 1, 1);
    let used = ready(&mut pool, 0, 5);
    assert_eq!(pool.observed(0, 40.into(), 6), [], "110 of 100");
    assert_eq!(pool.used().total(), 110);
    let late = waits(&mut pool, 0, 7).0;
    assert_eq!(pool.release(used, 8), [Effect::Unload(0)]);
    assert_eq!(pool.unloaded(0, 9), [Effect::Load(0, 1)]);
    assert_eq!(pool.loaded(0, 0, 10), [Effect::Ready(late)]);
    assert_eq!(pool.used().total(), 70);
}

fn load_into(pool: &mut Pool, model: usize, processes: u32) {
    let (lease, effects) = waits(pool, model, 0);
    assert_eq!(effects, [Effect::Load(model, processes)]);
    pool.loaded(model, 0, 0);
    pool.release(lease, 0);
}

#[test]
fn processes_that_are_configured_count_from_the_start_and_are_named_where_they_do_not_fit() {
    let mib = 1024 * 1024;
    let twice = |bytes| Need {
        processes: Processes::Exactly(2),
        ..need(bytes * mib)
    };
    let budget = Limits {
        memory: Amount::from(100 * mib),
        ..limits()
    };
    let refusal = |needs: [Need; 2]| {
        let mut pool = Pool::new(budget.clone(), 2);
        for (model, need) in needs.into_iter().enumerate() {
            pool.know(model, need, 0);
        }
        match pool.ask(1, 1).0 {
            Asked::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let pin = |need| Need {
        is_pinned: true,
        ..need
    };
    let why = refusal([need(0), twice(60)]);
    for part in [
        "120 MiB",
        "2 processes, each with by estimate",
        "lower `engine.replicas`",
    ] {
        assert!(why.contains(part), "{part} in {why}");
    }
    let why = refusal([pin(twice(40)), twice(30)]);
    assert!(why.contains("lower `engine.replicas`"), "{why}");
    assert!(why.contains("pinned models take 80 MiB"), "{why}");
    let why = refusal([need(0), twice(101)]);
    assert!(!why.contains("replicas"), "one is too much: {why}");
}

#[test]
fn a_model_that_is_refused_leaves_its_share_to_the_others() {
    let mut pool = Pool::new(limits(), 2);
    pool.forget(1, "damaged", 0);
    assert_eq!(pool.know(0, divided(30), 0), [Effect::Load(0, 3)]);
    // What can never be loaded needs nothing either.
    let mut pool = super::pool(&[divided(10), need(101)]);
    assert_eq!(waits(&mut pool, 0, 0).1, [Effect::Load(0, 4)]);
}
