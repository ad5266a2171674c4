//! Breakers one step at a time, and what holds whatever happens.

use super::*;
use crate::testing::{id, region};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashSet;

fn model(name: &str) -> ModelRef {
    name.parse().expect("valid")
}

/// Breakers, a clock and dice.
struct Bench {
    breakers: Breakers,
    now_ms: u64,
    rng: StdRng,
    tiny: ModelRef,
    here: Region,
}

impl Bench {
    fn new() -> Self {
        Self {
            breakers: Breakers::new(BreakerSettings::default()),
            now_ms: 1_000,
            rng: StdRng::seed_from_u64(1),
            tiny: model("tiny@1.0"),
            here: region("here"),
        }
    }

    fn place(&self, worker: u16, epoch: u64) -> Place<'_> {
        Place {
            worker: id(worker),
            epoch,
            model: &self.tiny,
            region: &self.here,
        }
    }

    fn verdict(&self, worker: u16) -> Verdict {
        self.breakers.admits(&self.place(worker, 1), self.now_ms)
    }

    fn begin_of(&mut self, worker: u16, epoch: u64) -> Result<Pass, u64> {
        let (tiny, here) = (self.tiny.clone(), self.here.clone());
        let place = Place {
            worker: id(worker),
            epoch,
            model: &tiny,
            region: &here,
        };
        self.breakers.begin(&place, self.now_ms)
    }

    fn begin(&mut self, worker: u16) -> Pass {
        self.begin_of(worker, 1).expect("let through")
    }

    fn end(&mut self, pass: Pass, outcome: Outcome) -> Vec<Change> {
        self.breakers.end(pass, outcome, self.now_ms, &mut self.rng)
    }

    fn once(&mut self, worker: u16, outcome: Outcome) -> Vec<Change> {
        let pass = self.begin(worker);
        self.end(pass, outcome)
    }

    fn worker(&self, worker: u16) -> State {
        self.shown(worker).state
    }

    fn shown(&self, worker: u16) -> Shown {
        self.breakers.of_worker(&id(worker), 1, self.now_ms)
    }

    fn model(&self) -> State {
        self.breakers.of_model(&self.tiny, self.now_ms).state
    }

    fn fail_until_open(&mut self, worker: u16) -> u64 {
        for _ in 0..5 {
            let _ = self.once(worker, Outcome::Fault);
        }
        match self.worker(worker) {
            State::Open { until_ms } => until_ms,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_worker_that_fails_five_times_in_a_row_is_left_alone_and_probed_later() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        assert_eq!(bench.once(1, Outcome::Fault), []);
    }
    let _ = bench.once(1, Outcome::Success);
    for _ in 0..4 {
        assert_eq!(bench.once(1, Outcome::Fault), [], "the row was broken");
    }
    let changes = bench.once(1, Outcome::Fault);
    let State::Open { until_ms } = bench.worker(1) else {
        panic!("not open");
    };
    let subject = Subject::Worker(id(1));
    let to = State::Open { until_ms };
    assert_eq!(changes, [Change { subject, to }]);
    assert!((500..=1_000).contains(&(until_ms - bench.now_ms)));
    assert_eq!(bench.begin_of(1, 1).map(|_| ()), Err(until_ms));
    assert_eq!(bench.verdict(2), Verdict::Yes, "others have its work");

    bench.now_ms = until_ms;
    assert_eq!(bench.verdict(1), Verdict::Probe);
    let (one, two) = (bench.begin(1), bench.begin(1));
    assert!(
        matches!(bench.verdict(1), Verdict::No { .. }),
        "two at once"
    );
    assert_eq!(bench.end(one, Outcome::Success), []);
    assert_eq!(bench.verdict(1), Verdict::Probe);
    let to = State::Closed;
    let subject = Subject::Worker(id(1));
    assert_eq!(bench.end(two, Outcome::Success), [Change { subject, to }]);
    assert_eq!(bench.verdict(1), Verdict::Yes);
}

#[test]
fn a_probe_that_answers_makes_room_for_the_next_before_it_is_over() {
    let mut bench = Bench::new();
    bench.now_ms = bench.fail_until_open(1);
    let passes: Vec<Pass> = (0..40)
        .map(|_| {
            let pass = bench.begin(1);
            bench.breakers.first_piece(&pass, bench.now_ms);
            pass
        })
        .collect();
    assert_eq!(bench.worker(1), State::HalfOpen);
    let mut passes = passes.into_iter();
    let first = passes.next().expect("there");
    let _ = bench.end(first, Outcome::Fault);
    assert!(matches!(bench.worker(1), State::Open { .. }));
    for pass in passes {
        assert_eq!(bench.end(pass, Outcome::Fault), [], "it is known already");
    }
    assert_eq!(bench.shown(1).openings, 2);
}

#[test]
fn a_probe_that_nobody_ends_keeps_its_place_for_a_while_only() {
    let mut bench = Bench::new();
    bench.now_ms = bench.fail_until_open(1);
    let lost = [bench.begin(1), bench.begin(1)];
    let by = bench.now_ms + BreakerSettings::default().probe_timeout_ms;
    let no = Verdict::No {
        until_ms: by,
        is_tried: true,
    };
    assert_eq!(bench.verdict(1), no);
    drop(lost);
    bench.now_ms = by;
    for _ in 0..2 {
        assert_eq!(bench.verdict(1), Verdict::Probe);
        let _ = bench.once(1, Outcome::Success);
    }
    assert_eq!(bench.worker(1), State::Closed);
}

#[test]
fn open_time_doubles_up_to_its_bound_and_starts_anew_after_a_calm() {
    let mut bench = Bench::new();
    let mut longest = 1_000;
    let mut until_ms = bench.fail_until_open(1);
    for _ in 0..9 {
        bench.now_ms = until_ms;
        let _ = bench.once(1, Outcome::Fault);
        let State::Open { until_ms: next } = bench.worker(1) else {
            panic!("not open");
        };
        longest = (longest * 2).min(60_000);
        let lasts = next - bench.now_ms;
        assert!(
            (longest / 2..=longest).contains(&lasts),
            "{lasts} {longest}"
        );
        until_ms = next;
    }
    bench.now_ms = until_ms;
    let _ = bench.once(1, Outcome::Success);
    let _ = bench.once(1, Outcome::Success);
    let until_ms = bench.fail_until_open(1);
    assert!(
        until_ms - bench.now_ms >= 30_000,
        "it was not well for long"
    );
    bench.now_ms = until_ms;
    let _ = bench.once(1, Outcome::Success);
    let _ = bench.once(1, Outcome::Success);
    bench.now_ms += 120_000;
    let until_ms = bench.fail_until_open(1);
    assert!(until_ms - bench.now_ms <= 1_000);
}

#[test]
fn a_new_process_of_a_worker_shows_its_own_and_the_old_ones_faults_do_not_count() {
    let mut bench = Bench::new();
    let late: Vec<Pass> = (0..3).map(|_| bench.begin(1)).collect();
    let until_ms = bench.fail_until_open(1);
    assert_eq!(bench.begin_of(1, 1).map(|_| ()), Err(until_ms));
    let booted = bench.breakers.of_worker(&id(1), 2, bench.now_ms);
    assert_eq!(booted.state, State::HalfOpen);
    let pass = bench.begin_of(1, 2).expect("a new process");
    for late in late {
        assert_eq!(bench.end(late, Outcome::Fault), [], "of the old process");
    }
    let _ = bench.end(pass, Outcome::Success);
    let pass = bench.begin_of(1, 2).expect("well so far");
    let _ = bench.end(pass, Outcome::Success);
    assert_eq!(bench.worker(1), State::Closed);
    let pass = bench.begin_of(9, 7).expect("it never failed");
    let _ = bench.end(pass, Outcome::Success);
    let place = bench.place(9, 8);
    assert_eq!(bench.breakers.admits(&place, bench.now_ms), Verdict::Yes);
}

#[test]
fn a_model_opens_by_several_workers_and_one_bad_worker_does_not_keep_it_open() {
    let mut bench = Bench::new();
    for n in 0..10 {
        let _ = bench.once(n % 3, Outcome::Fault);
        bench.now_ms += 100;
    }
    let State::Open { until_ms } = bench.model() else {
        panic!("not open");
    };
    let no = Verdict::No {
        until_ms,
        is_tried: false,
    };
    assert_eq!(bench.verdict(77), no);
    bench.now_ms = until_ms;
    for _ in 0..4 {
        let _ = bench.once(70, Outcome::Fault);
        assert_eq!(bench.model(), State::HalfOpen, "one of many");
    }
    let _ = bench.once(71, Outcome::Fault);
    let _ = bench.once(72, Outcome::Fault);
    assert!(matches!(bench.model(), State::Open { .. }));
}

#[test]
fn what_the_tenant_did_is_no_fault_and_what_the_worker_did_is() {
    use Code::*;
    for code in [
        Invalid,
        Conflict,
        RateLimited,
        Overloaded,
        Deadline,
        Cancelled,
    ] {
        assert_eq!(Outcome::of_error(code), Outcome::Neutral, "{code:?}");
    }
    for code in [
        NotFound,
        Forbidden,
        Unavailable,
        Internal,
        Unimplemented,
        Unknown,
    ] {
        assert_eq!(Outcome::of_error(code), Outcome::Fault, "{code:?}");
    }
}

#[test]
fn a_worker_that_never_failed_costs_nothing_and_one_that_did_is_forgotten() {
    let mut bench = Bench::new();
    for n in 0..2_000 {
        let _ = bench.once(n % 500, Outcome::Success);
        let _ = bench.once(n % 500, Outcome::Neutral);
    }
    assert_eq!(bench.breakers.workers.all().count(), 0);
    for n in 0..500 {
        bench.now_ms += 5_000;
        let _ = bench.once(n, Outcome::Fault);
    }
    assert!(bench.breakers.workers.all().count() < 10);
}

#[test]
fn a_fleet_that_fails_takes_no_more_memory_than_is_set() {
    let mut breakers = Breakers::new(BreakerSettings::default());
    let mut rng = StdRng::seed_from_u64(1);
    for n in 0..2 * MAX_WORKERS as u64 {
        let mut worker = NodeId([0; 32]);
        worker.0[..8].copy_from_slice(&n.to_be_bytes());
        let (tiny, away) = (
            model(&format!("m{}@1.0", n % (2 * MAX_MODELS as u64))),
            region(&format!("r{}", n % (2 * MAX_REGIONS as u64))),
        );
        let place = Place {
            worker,
            epoch: 1,
            model: &tiny,
            region: &away,
        };
        let pass = breakers.begin(&place, n / 1_000).expect("a stranger");
        let _ = breakers.end(pass, Outcome::Fault, n / 1_000, &mut rng);
    }
    assert_eq!(breakers.workers.all().count(), MAX_WORKERS);
    assert_eq!(breakers.models.all().count(), MAX_MODELS);
    assert_eq!(breakers.regions.all().count(), MAX_REGIONS);
    assert!(size_of::<Circuit>() <= 256, "{}", size_of::<Circuit>());
}

/// A step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin { worker: u16, epoch: u64 },
    FirstPiece { nth: usize },
    End { nth: usize, outcome: Outcome },
    Lose { nth: usize },
    Wait { ms: u64 },
    Back { ms: u64 },
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        2 => Just(Outcome::Success),
        4 => Just(Outcome::Fault),
        1 => Just(Outcome::Neutral),
    ]
}

fn step(workers: u16) -> impl Strategy<Value = Step> {
    let nth = || 0..64_usize;
    prop_oneof![
        8 => (0..workers, 1..3_u64).prop_map(|(worker, epoch)| Step::Begin { worker, epoch }),
        2 => nth().prop_map(|nth| Step::FirstPiece { nth }),
        8 => (nth(), outcome()).prop_map(|(nth, outcome)| Step::End { nth, outcome }),
        1 => nth().prop_map(|nth| Step::Lose { nth }),
        4 => (0..800_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..20_000_u64).prop_map(|ms| Step::Back { ms }),
    ]
}

/// Runs a history; after each step `holds` is asked, with the requests under way.
fn run(steps: &[Step], mut holds: impl FnMut(&Bench, &[Pass])) {
    let (mut bench, mut passes) = (Bench::new(), Vec::new());
    for step in steps {
        let nth = |nth: usize, passes: &[Pass]| nth % passes.len().max(1);
        match *step {
            Step::Begin { worker, epoch } => passes.extend(bench.begin_of(worker, epoch).ok()),
            Step::FirstPiece { nth: at } if !passes.is_empty() => {
                let at = nth(at, &passes);
                bench.breakers.first_piece(&passes[at], bench.now_ms);
            }
            Step::End { nth: at, outcome } if !passes.is_empty() => {
                let pass = passes.swap_remove(nth(at, &passes));
                let _ = bench.end(pass, outcome);
            }
            Step::Lose { nth: at } if !passes.is_empty() => {
                drop(passes.swap_remove(nth(at, &passes)));
            }
            Step::Wait { ms } => bench.now_ms += ms,
            Step::Back { ms } => bench.now_ms = bench.now_ms.saturating_sub(ms),
            Step::FirstPiece { .. } | Step::End { .. } | Step::Lose { .. } => {}
        }
        holds(&bench, &passes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fewer_workers_than_must_fail_never_open_their_model(
        steps in proptest::collection::vec(step(2), 1..400),
    ) {
        run(&steps, |bench, _| assert_eq!(bench.model(), State::Closed));
    }

    #[test]
    fn a_place_that_is_not_open_says_when_to_ask_and_then_it_is_not_open(
        steps in proptest::collection::vec(step(6), 1..400),
    ) {
        run(&steps, |bench, _| {
            for worker in 0..6 {
                let room = bench.breakers.room(&bench.place(worker, 1), bench.now_ms);
                let least = room.worker.min(room.model).min(room.region);
                let is_let_through = !matches!(bench.verdict(worker), Verdict::No { .. });
                assert_eq!(least > 0, is_let_through, "{room:?}");
                let Verdict::No { until_ms, .. } = bench.verdict(worker) else { continue };
                assert!(until_ms > bench.now_ms, "in the future");
                let most = BreakerSettings::default().max_open_ms;
                assert!(until_ms <= bench.now_ms + most + 20_000, "{until_ms}");
                let then = bench.breakers.admits(&bench.place(worker, 1), until_ms + most);
                assert!(!matches!(then, Verdict::No { .. }), "{then:?}");
            }
        });
    }

    #[test]
    fn a_half_open_worker_has_no_more_in_the_dark_than_is_set(
        begins in proptest::collection::vec((0..4_usize, 0..3_000_u64), 1..60),
    ) {
        let mut bench = Bench::new();
        bench.now_ms = bench.fail_until_open(1);
        let settings = BreakerSettings::default();
        let mut dark: Vec<(u64, Pass)> = Vec::new();
        for (what, ms) in begins {
            match what {
                0 if !dark.is_empty() => {
                    let (_, pass) = dark.remove(0);
                    let _ = bench.end(pass, Outcome::Neutral);
                }
                1 => bench.now_ms += ms,
                _ => dark.extend(bench.begin_of(1, 1).ok().map(|pass| (bench.now_ms, pass))),
            }
            let live = dark.iter().filter(|(at, _)| at + settings.probe_timeout_ms > bench.now_ms);
            prop_assert!(live.count() <= 2);
        }
    }

    #[test]
    fn what_is_no_fault_leaves_no_trace(
        steps in proptest::collection::vec((0..50_u16, any::<bool>()), 1..200),
    ) {
        let mut bench = Bench::new();
        let mut seen = HashSet::new();
        for (worker, success) in steps {
            let outcome = if success { Outcome::Success } else { Outcome::Neutral };
            prop_assert_eq!(bench.once(worker, outcome), vec![]);
            seen.insert(worker);
        }
        prop_assert!(seen.iter().all(|it| bench.verdict(*it) == Verdict::Yes));
        prop_assert_eq!(bench.breakers.workers.all().count(), 0);
    }
}
