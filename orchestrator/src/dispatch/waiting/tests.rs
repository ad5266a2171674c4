use super::*;
use futures_util::FutureExt;
use tether_telemetry::metrics::Registry;
use tether_wire::TenantId;

const DIGEST: Digest = Digest([1; 32]);

fn waiting() -> Waiting {
    let metrics = OrchestratorMetrics::register(&Registry::new());
    Waiting::new(QueueSettings::default(), metrics)
}

fn model() -> ModelRef {
    "m@1.0".parse().expect("valid")
}

fn enter(waiting: &Waiting, tenant: &str, free: u32) -> Entered {
    enter_work(waiting, tenant, free, 1)
}

fn enter_work(waiting: &Waiting, tenant: &str, free: u32, work: u32) -> Entered {
    let entry = Entry {
        tenant: TenantId::new(tenant).expect("valid"),
        weight: 1,
        priority: Priority::Normal,
        work,
        bytes: 1,
        turn_by_ms: u64::MAX,
        margin_ms: 0,
        what: Arc::default(),
    };
    waiting.enter((&model(), DIGEST), entry, |_| free, 0)
}

#[track_caller]
fn waits(entered: Entered) -> Waiter {
    match entered {
        Entered::Waits(waiter) => waiter,
        Entered::Turn(_) => panic!("it has its turn"),
        Entered::Shed(shed) => panic!("{shed:?}"),
    }
}

#[track_caller]
fn turn(entered: Entered) -> Turn {
    match entered {
        Entered::Turn(turn) => turn,
        Entered::Waits(_) => panic!("it waits"),
        Entered::Shed(shed) => panic!("{shed:?}"),
    }
}

/// What it took of its share is as it was said.
fn has_turn(waiter: &mut Waiter) -> Option<Turn> {
    let (turn, spent) = waiter.turn().now_or_never()?.ok()?;
    spent.settle(0);
    Some(turn)
}

#[test]
fn a_turn_is_a_taken_place_until_a_worker_counts_it() {
    let waiting = waiting();
    let first = turn(enter(&waiting, "a", 2));
    let _second = turn(enter(&waiting, "a", 2));
    let mut third = waits(enter(&waiting, "a", 2));
    waiting.call(|_, _, _| 2, 0);
    assert!(has_turn(&mut third).is_none());
    drop(first);
    waiting.call(|_, digest, _| if *digest == DIGEST { 2 } else { 0 }, 0);
    assert!(has_turn(&mut third).is_some());
    assert!(waiting.is_empty());
}

#[test]
fn who_comes_while_others_wait_is_behind_them_though_a_place_is_free() {
    let waiting = waiting();
    let mut first = waits(enter(&waiting, "a", 0));
    let mut second = waits(enter(&waiting, "a", 1));
    waiting.call(|_, _, _| 1, 0);
    let given = has_turn(&mut first).expect("it was first");
    assert!(has_turn(&mut second).is_none());
    drop(given);
    waiting.call(|_, _, _| 1, 0);
    assert!(has_turn(&mut second).is_some());
}

#[test]
fn who_has_a_turn_and_makes_nothing_of_it_has_its_share_back() {
    for (is_used, is_heard) in [(true, true), (false, true), (false, false)] {
        let waiting = waiting();
        let mut first = waits(enter_work(&waiting, "a", 0, 10));
        let mut second = waits(enter(&waiting, "a", 0));
        let mut others = [(); 3].map(|()| waits(enter_work(&waiting, "b", 0, 5)));
        waiting.call(|_, _, _| 1, 0);
        if is_heard {
            let (_, spent) = (first.turn().now_or_never())
                .expect("called")
                .expect("it was first");
            if is_used {
                spent.settle(0);
            }
        }
        drop(first);
        waiting.call(|_, _, _| 2, 0);
        assert_eq!(has_turn(&mut second).is_some(), !is_used);
        let others = others.iter_mut().filter_map(has_turn).count();
        assert_eq!(others, if is_used { 2 } else { 1 });
    }
}

#[test]
fn who_goes_away_gives_its_place_to_the_next() {
    let waiting = waiting();
    let gone = waits(enter(&waiting, "a", 0));
    let late = waits(enter(&waiting, "a", 0));
    let mut last = waits(enter(&waiting, "a", 0));
    drop(gone);
    // It is called, and goes before it hears of that.
    waiting.call(|_, _, _| 1, 0);
    drop(late);
    waiting.call(|_, _, _| 1, 0);
    assert!(has_turn(&mut last).is_some());
    drop(last);
    let room = waiting.room();
    assert!(room.turns.is_empty() && room.digests.is_empty() && room.queues.is_empty());
}

#[test]
fn whose_time_is_over_is_told_and_has_no_turn() {
    let waiting = waiting();
    let mut waiter = waits(enter(&waiting, "a", 0));
    waiting.call(|_, _, _| 0, u64::MAX);
    let told = waiter.turn().now_or_never().expect("called");
    assert_eq!(told.map(|_| ()), Err(Vain::Late));
}

#[test]
fn a_tenant_that_floods_is_shed_and_leaves_room_for_others() {
    let waiting = waiting();
    let mut waiters = Vec::new();
    let shed = loop {
        match enter(&waiting, "flood", 0) {
            Entered::Waits(waiter) => waiters.push(waiter),
            Entered::Shed(shed) => break shed,
            Entered::Turn(_) => panic!("no place is free"),
        }
    };
    assert_eq!(waiters.len(), QueueSettings::default().entries / 2);
    assert_eq!(shed.why.label(), "tenant-full");
    assert!(shed.retry_after_ms > 0);
    let mut other = waits(enter(&waiting, "other", 0));
    waiting.call(|_, _, _| 2, 0);
    assert!(
        has_turn(&mut other).is_some(),
        "it is not behind all of them"
    );
}

#[test]
fn the_time_of_an_answer_is_kept_back_from_the_wait_as_answers_of_late_took() {
    let waiting = waiting();
    let within = |work, left_ms| waiting.turn_within_ms(&model(), work, left_ms);
    assert_eq!(within(10, 3_000), (3_000, 3_000), "nothing is known");
    for _ in 0..8 {
        waiting.answered(&model(), 10, Duration::from_millis(500));
    }
    assert_eq!(within(10, 3_000), (2_500, 2_500));
    assert_eq!(within(20, 3_000), (2_000, 2_000), "twice the work");
    assert_eq!(
        within(1_000, 3_000),
        (1_500, 1_500),
        "it may be over sooner than it says"
    );
    assert_eq!(within(10, 0), (0, 0));
    for took_ms in [300, 700].into_iter().cycle().take(64) {
        waiting.answered(&model(), 10, Duration::from_millis(took_ms));
    }
    let (cautious_ms, most_ms) = within(10, 3_000);
    assert!((2_450..=2_550).contains(&most_ms), "{most_ms}");
    assert!((2_000..=2_200).contains(&cautious_ms), "{cautious_ms}");
}

/// Rules by which a tenant's requests stay in a region.
fn stays_in(region: &str) -> Arc<Effective> {
    let text = format!(r#"{{"global": {{"regions": ["{region}"]}}}}"#);
    let policy = crate::policy::Policy::read(&text).expect("a policy");
    policy.of(&TenantId::new("a").expect("valid")).clone()
}

fn entry(tenant: &str, what: Arc<Effective>) -> Entry<Arc<Effective>> {
    Entry {
        tenant: TenantId::new(tenant).expect("valid"),
        weight: 1,
        priority: Priority::Normal,
        work: 1,
        bytes: 1,
        turn_by_ms: u64::MAX,
        margin_ms: 0,
        what,
    }
}

#[test]
fn who_must_stay_in_a_region_waits_for_a_place_there_and_holds_nobody_up() {
    let waiting = waiting();
    // One place in all, and none in the region.
    let free = |within: Within<'_>| u32::from(within.is_none());
    let asks = entry("bank", stays_in("eu"));
    let mut bank = waits(waiting.enter((&model(), DIGEST), asks, free, 0));
    waiting.call(|_, _, within| free(within), 0);
    assert!(
        has_turn(&mut bank).is_none(),
        "the place is not where it may go"
    );
    let asks = entry("acme", Arc::default());
    let other = turn(waiting.enter((&model(), DIGEST), asks, free, 0));
    drop(other);
    waiting.call(|_, _, _| 1, 0);
    assert!(has_turn(&mut bank).is_some(), "and now it is");
}

/// Two places, of which one is in the region.
#[test]
fn turns_of_those_who_may_go_anywhere_leave_a_region_to_those_who_must_stay_there() {
    let waiting = waiting();
    let free = |within: Within<'_>| if within.is_none() { 2 } else { 1 };
    let enter = |tenant, rules| waiting.enter((&model(), DIGEST), entry(tenant, rules), free, 0);
    let first = turn(enter("acme", Arc::default()));
    let bank = turn(enter("bank", stays_in("eu")));
    let mut more = waits(enter("acme", Arc::default()));
    waiting.call(|_, _, within| free(within), 0);
    assert!(has_turn(&mut more).is_none(), "both places are taken");
    drop(bank);
    waiting.call(|_, _, within| free(within), 0);
    let second = has_turn(&mut more).expect("one is free");
    let mut bank = waits(enter("bank", stays_in("eu")));
    waiting.call(|_, _, within| free(within), 0);
    assert!(has_turn(&mut bank).is_none(), "the other one goes there");
    drop((first, second));
    waiting.call(|_, _, within| free(within), 0);
    assert!(has_turn(&mut bank).is_some());
}

#[test]
fn while_one_waits_for_a_place_of_its_own_others_go_on_and_the_next_is_not_told_that_nothing_does()
{
    let waiting = waiting();
    let free = |within: Within<'_>| u32::from(within.is_none());
    let asks = entry("bank", stays_in("eu"));
    let _bank = waits(waiting.enter((&model(), DIGEST), asks, free, 0));
    for now_ms in (0..40_000).step_by(100) {
        let asks = entry("acme", Arc::default());
        drop(turn(waiting.enter((&model(), DIGEST), asks, free, now_ms)));
    }
    let asks = entry("acme", Arc::default());
    let last = waits(waiting.enter((&model(), DIGEST), asks, |_| 0, 40_000));
    let estimate_ms = last.estimate_ms(40_000).expect("it is known");
    assert!(estimate_ms < 1_000, "{estimate_ms}");
}

#[test]
fn who_waits_for_what_nobody_serves_any_more_is_told_so_and_others_wait_on() {
    let waiting = waiting();
    let enter =
        |tenant, rules| waits(waiting.enter((&model(), DIGEST), entry(tenant, rules), |_| 0, 0));
    let (mut bank, mut anybody) = (enter("bank", stays_in("eu")), enter("acme", Arc::default()));
    let mut told = |forsaken: [bool; 2]| {
        let waiters = [&mut bank, &mut anybody];
        for (waiter, forsaken) in waiters.into_iter().zip(forsaken) {
            let turn = waiter.turn().now_or_never().map(|it| it.expect_err("none"));
            assert_eq!(turn, forsaken.then_some(Vain::Unserved));
        }
    };
    let nobody = |_: &ModelRef, _: &Digest, _: Within<'_>| false;
    let elsewhere = |_: &ModelRef, _: &Digest, within: Within<'_>| within.is_none();
    waiting.forsake(nobody, 100, 0);
    waiting.forsake(|_, _, _| true, 100, 99);
    waiting.forsake(elsewhere, 100, 150);
    told([false, false]);
    waiting.forsake(elsewhere, 100, 249);
    told([false, false]);
    waiting.forsake(elsewhere, 100, 250);
    told([true, false]);
}
