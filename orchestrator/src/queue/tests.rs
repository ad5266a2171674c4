//! A queue one step at a time, and what holds whatever happens.

use super::*;
use proptest::prelude::*;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("valid")
}

fn entry(name: &str, what: u32) -> Entry<u32> {
    Entry {
        tenant: tenant(name),
        weight: 1,
        priority: Priority::Normal,
        work: 1,
        bytes: 10,
        turn_by_ms: 1_000_000,
        margin_ms: 0,
        what,
    }
}

fn queue() -> Queue<u32> {
    Queue::new(QueueSettings::default())
}

fn turns(queue: &mut Queue<u32>, now_ms: u64) -> Vec<u32> {
    let mut next = || match queue.take(now_ms)? {
        Turn::Serve(what) => Some(what),
        Turn::Late(what) => panic!("{what} is late"),
    };
    std::iter::from_fn(&mut next).collect()
}

fn why(pushed: Result<Ticket, Shed<u32>>) -> Option<Why> {
    pushed.err().map(|shed| shed.why)
}

/// A queue that gives a turn each 10 ms, and now.
fn paced() -> (Queue<u32>, u64) {
    let mut queue = queue();
    let _ = queue.push(entry("pace", 0), 0);
    for n in 1..=100 {
        let _ = queue.push(entry("pace", 0), n * 10);
        let _ = queue.take(n * 10);
    }
    let _ = queue.take(1_000);
    assert!(queue.is_empty());
    (queue, 1_000)
}

#[test]
fn tenants_take_turns_and_each_ones_requests_keep_their_order() {
    let mut queue = queue();
    for (name, what) in [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 10),
        ("b", 11),
        ("c", 20),
    ] {
        queue.push(entry(name, what), 0).expect("there is room");
    }
    assert_eq!(turns(&mut queue, 0), [1, 10, 20, 2, 11, 3]);
}

#[test]
fn a_tenant_with_one_request_is_not_behind_the_flood_of_another() {
    let mut queue = queue();
    for n in 0..400 {
        queue.push(entry("flood", n), 0).expect("there is room");
    }
    for _ in 0..100 {
        let _ = queue.take(0);
    }
    queue.push(entry("lone", 7_777), 0).expect("there is room");
    let next = [queue.take(0), queue.take(0)];
    assert!(next.contains(&Some(Turn::Serve(7_777))), "{next:?}");
}

#[test]
fn low_priority_gets_its_part_and_high_priority_most() {
    let mut queue = queue();
    for n in 0..150 {
        for (priority, name, what) in [
            (Priority::Low, "l", 1),
            (Priority::Normal, "n", 4),
            (Priority::High, "h", 16),
        ] {
            let priority = Entry {
                priority,
                ..entry(name, what)
            };
            queue.push(priority, n).expect("there is room");
        }
    }
    let served: Vec<u32> = turns(&mut queue, 200).into_iter().take(168).collect();
    for (part, times) in [(1, 8), (4, 32), (16, 128)] {
        let found = served.iter().filter(|it| **it == part).count();
        assert!(found.abs_diff(times) <= 1, "{found} of {part}");
    }
}

#[test]
fn work_is_shared_and_not_the_number_of_requests() {
    let mut queue = queue();
    for n in 0..400 {
        let large = Entry {
            work: 100,
            ..entry("large", 100)
        };
        let _ = queue.push(large, n);
        let small = Entry {
            work: 5,
            ..entry("small", 5)
        };
        let _ = queue.push(small, n);
    }
    let served: Vec<u32> = turns(&mut queue, 400).into_iter().take(210).collect();
    let work = |of: u32| served.iter().filter(|it| **it == of).sum::<u32>();
    assert!(
        work(100).abs_diff(work(5)) <= 105,
        "{} {}",
        work(100),
        work(5)
    );
}

#[test]
fn a_request_whose_time_is_over_is_given_back_and_frees_its_place() {
    let mut queue = queue();
    let late = Entry {
        turn_by_ms: 500,
        ..entry("a", 1)
    };
    queue.push(late, 0).expect("there is room");
    queue.push(entry("a", 2), 0).expect("there is room");
    assert_eq!(queue.first_late_ms(), Some(500));
    assert_eq!(queue.take_late(499), None);
    assert_eq!(queue.take(500), Some(Turn::Late(1)));
    assert_eq!(queue.take(500), Some(Turn::Serve(2)));
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    let past = Entry {
        turn_by_ms: 500,
        ..entry("a", 3)
    };
    assert_eq!(why(queue.push(past, 500)), Some(Why::TooLate));
}

#[test]
fn what_cannot_have_its_turn_in_time_is_refused_when_it_comes_and_told_when_to_come() {
    let (mut queue, now_ms) = paced();
    let by = |turn_by_ms, what| Entry {
        turn_by_ms,
        ..entry("a", what)
    };
    for n in 0..100 {
        queue.push(by(now_ms + 60_000, n), now_ms).expect("in time");
    }
    let wait_ms = queue.wait_ms(&by(0, 0), now_ms).expect("known");
    assert!((900..=1_100).contains(&wait_ms), "{wait_ms}");
    let shed = queue.push(by(now_ms + wait_ms - 100, 0), now_ms);
    let shed = shed.expect_err("too late");
    assert_eq!((shed.why, shed.retry_after_ms), (Why::TooLate, wait_ms));
    // Who comes when told finds those gone that were before.
    for n in 0..100 {
        let _ = queue.take(now_ms + n * 10);
    }
    let then_ms = now_ms + shed.retry_after_ms;
    assert_eq!(why(queue.push(by(then_ms + 100, 0), then_ms)), None);
}

#[test]
fn what_comes_must_be_foretold_with_a_margin_and_what_was_let_in_has_it() {
    let (mut queue, now_ms) = paced();
    for n in 0..100 {
        queue.push(entry("a", n), now_ms).expect("there is room");
    }
    let foretold_ms = queue.wait_ms(&entry("a", 0), now_ms).expect("known");
    let turn_by_ms = now_ms + 2 * foretold_ms;
    let with = |margin_ms, what| Entry {
        turn_by_ms,
        margin_ms,
        ..entry("a", what)
    };
    let refused = queue.push(with(foretold_ms, 200), now_ms);
    assert_eq!(why(refused), Some(Why::TooLate));
    (queue.push(with(foretold_ms / 2, 300), now_ms)).expect("in time");
    assert_eq!(
        queue.take_late(turn_by_ms - 1),
        None,
        "the margin is its own"
    );
    assert_eq!(queue.take_late(turn_by_ms), Some(300));
}

#[test]
fn another_tenant_has_its_own_wait_and_not_that_of_the_flood() {
    let (mut queue, now_ms) = paced();
    for n in 0..400 {
        queue
            .push(entry("flood", n), now_ms)
            .expect("there is room");
    }
    let lone = Entry {
        turn_by_ms: now_ms + 50,
        ..entry("lone", 1)
    };
    let wait_ms = queue.wait_ms(&lone, now_ms).expect("known");
    assert!((5..=15).contains(&wait_ms), "{wait_ms}");
    queue.push(lone, now_ms).expect("in time");
}

#[test]
fn a_tenant_has_at_most_its_part_and_several_that_flood_leave_room() {
    let settings = QueueSettings {
        entries: 100,
        ..QueueSettings::default()
    };
    let mut queue = Queue::new(settings);
    let fill = |queue: &mut Queue<u32>, name: &str| {
        let pushed = (0..200).map(|n| queue.push(entry(name, n), 0));
        pushed.filter(Result::is_ok).count()
    };
    assert_eq!(fill(&mut queue, "a"), 50);
    assert_eq!(why(queue.push(entry("a", 0), 0)), Some(Why::TenantFull));
    assert_eq!(fill(&mut queue, "b"), 25);
    assert_eq!(fill(&mut queue, "c"), 13);
    assert_eq!(why(queue.push(entry("lone", 0), 0)), None);
    for n in 0..11 {
        assert_eq!(why(queue.push(entry(&format!("t{n}"), 0), 0)), None);
    }
    assert_eq!(queue.len(), 100);
    let shed = queue.push(entry("z", 7), 0).expect_err("full");
    assert_eq!((shed.why, shed.what), (Why::Full, 7));
    assert_eq!(shed.retry_after_ms, 1_000, "no rate is known");
}

#[test]
fn bytes_are_bounded_as_requests_are() {
    let settings = QueueSettings {
        bytes: 1_000,
        ..QueueSettings::default()
    };
    let mut queue = Queue::new(settings);
    let large = |name: &str, bytes| Entry {
        bytes,
        ..entry(name, 0)
    };
    assert_eq!(why(queue.push(large("a", 600), 0)), None, "its first");
    assert_eq!(why(queue.push(large("a", 1), 0)), Some(Why::TenantFull));
    assert_eq!(why(queue.push(large("b", 401), 0)), Some(Why::Full));
    assert_eq!(why(queue.push(large("b", 200), 0)), None);
    assert_eq!(why(queue.push(large("b", 1), 0)), Some(Why::TenantFull));
    assert_eq!(queue.bytes(), 800);
}

#[test]
fn a_request_that_is_cancelled_is_gone_wherever_it_waited() {
    let mut queue = queue();
    let mut tickets = Vec::new();
    for n in 0..5 {
        tickets.push(queue.push(entry("a", n), 0).expect("there is room"));
    }
    tickets.push(queue.push(entry("b", 9), 0).expect("there is room"));
    assert_eq!(queue.cancel(tickets[0], 0), Some(0));
    assert_eq!(queue.cancel(tickets[2], 0), Some(2));
    assert_eq!(queue.cancel(tickets[5], 0), Some(9));
    assert_eq!(queue.cancel(tickets[2], 0), None);
    assert_eq!(turns(&mut queue, 0), [1, 3, 4]);
    assert_eq!(queue.cancel(tickets[4], 0), None, "it had its turn");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push {
        tenant: u8,
        priority: Priority,
        work: u32,
        bytes: usize,
        patience_ms: u64,
    },
    Take,
    Late,
    Cancel(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![
        Just(Priority::High),
        Just(Priority::Normal),
        Just(Priority::Low),
    ];
    let push = (0..6_u8, priority, 1..20_u32, 0..300_usize, 0..2_000_u64);
    prop_oneof![
        6 => push.prop_map(|(tenant, priority, work, bytes, patience_ms)| Step::Push {
            tenant, priority, work, bytes, patience_ms,
        }),
        3 => Just(Step::Take),
        1 => Just(Step::Late),
        1 => (0..200_usize).prop_map(Step::Cancel),
        2 => (0..100_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Held against a plain list of what waits.
    #[test]
    fn each_request_leaves_once_in_time_and_nothing_is_left_behind(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let settings = QueueSettings { entries: 30, bytes: 4_000, ..QueueSettings::default() };
        let (mut queue, mut now_ms, mut next) = (Queue::new(settings), 0, 0);
        let mut waits: BTreeMap<u32, (Ticket, Entry<u32>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push { tenant: of, priority, work, bytes, patience_ms } => {
                    next += 1;
                    let entry = Entry {
                        priority, work, bytes,
                        turn_by_ms: now_ms + patience_ms,
                        ..entry(&format!("t{of}"), next)
                    };
                    if let Ok(ticket) = queue.push(entry.clone(), now_ms) {
                        waits.insert(next, (ticket, entry));
                    }
                }
                Step::Take => match queue.take(now_ms) {
                    Some(Turn::Serve(what)) => {
                        let (ticket, entry) = waits.remove(&what).expect("it waits");
                        prop_assert!(entry.turn_by_ms > now_ms);
                        let before = waits.values().filter(|(other, it)| {
                            *other < ticket && it.tenant == entry.tenant
                                && it.priority == entry.priority
                        });
                        prop_assert_eq!(before.count(), 0, "in their order");
                    }
                    Some(Turn::Late(what)) => {
                        let (_, entry) = waits.remove(&what).expect("it waits");
                        prop_assert!(entry.turn_by_ms <= now_ms);
                    }
                    None => prop_assert!(waits.is_empty()),
                },
                Step::Late => while let Some(what) = queue.take_late(now_ms) {
                    prop_assert!(waits.remove(&what).expect("it waits").1.turn_by_ms <= now_ms);
                },
                Step::Cancel(nth) => {
                    let Some((what, (ticket, _))) =
                        waits.iter().nth(nth % waits.len().max(1)).map(|(k, v)| (*k, v.clone()))
                    else { continue };
                    prop_assert_eq!(queue.cancel(ticket, now_ms), Some(what));
                    waits.remove(&what);
                }
                Step::Wait(ms) => now_ms += ms,
            }
            let bytes: usize = waits.values().map(|(_, it)| it.bytes).sum();
            prop_assert_eq!((queue.len(), queue.bytes()), (waits.len(), bytes));
            prop_assert!(queue.len() <= 30 && bytes <= 4_000);
            let lanes: usize = Priority::ALL.iter().map(|it| queue.waiting(*it)).sum();
            prop_assert_eq!(lanes, waits.len());
            let least = waits.values().map(|(_, it)| it.turn_by_ms).min();
            prop_assert_eq!(queue.first_late_ms(), least);
            if waits.is_empty() {
                prop_assert!(queue.tenants.is_empty());
            }
        }
    }
}
