use super::*;

const LIMITS: Limits = Limits {
    queue_ms: 120_000,
    first_ms: 60_000,
    stall_ms: 30_000,
};

/// With its time.
struct Watched {
    vigil: Vigil,
    now_ms: u64,
}

impl Watched {
    fn new(learnt: Learnt) -> Self {
        Self {
            vigil: Vigil::new(LIMITS, learnt, 0),
            now_ms: 0,
        }
    }

    fn begun(mut self, tokens: u32) -> Self {
        self.vigil.begun(tokens, self.now_ms);
        self
    }

    /// So many pieces, each after so long.
    fn pieces(mut self, count: usize, gap_ms: u64) -> Self {
        for _ in 0..count {
            let piece_ms = self.now_ms + gap_ms;
            assert_eq!(self.until(piece_ms), None, "in time");
            self.vigil.piece(self.now_ms);
        }
        self
    }

    /// Looks when it wants to; the first verdict before `end_ms`, with the time of it.
    fn until(&mut self, end_ms: u64) -> Option<(u64, Verdict)> {
        while self.vigil.wake_ms() < end_ms {
            self.now_ms = self.now_ms.max(self.vigil.wake_ms());
            match self.vigil.judge(self.now_ms) {
                Verdict::Wait => {}
                verdict => return Some((self.now_ms, verdict)),
            }
        }
        self.now_ms = end_ms;
        None
    }

    /// After how long it is in doubt.
    fn doubted_after(mut self) -> u64 {
        let since_ms = self.now_ms;
        let (at_ms, verdict) = self.until(u64::MAX).expect("some time");
        assert_eq!(verdict, Verdict::Doubt);
        at_ms - since_ms
    }
}

fn watched() -> Watched {
    Watched::new(Learnt::default())
}

#[test]
fn an_engine_that_pauses_in_a_process_that_lives_is_left_by_its_own_pace() {
    let quick = watched().begun(100).pieces(60, 20).doubted_after();
    assert!((2_000..=2_100).contains(&quick), "{quick}");
    let slow = watched().begun(100).pieces(60, 400).doubted_after();
    assert!((4_800..7_000).contains(&slow), "{slow}");
}

#[test]
fn what_is_not_known_yet_is_waited_for_as_configured() {
    let mut queued = watched();
    let told = queued.until(u64::MAX);
    assert_eq!(told, Some((120_000, Verdict::NoTurn)));
    let mut first = watched().begun(1_000);
    let told = first.until(u64::MAX);
    assert_eq!(told, Some((60_000, Verdict::Stalled)));
    let mut second = watched().begun(1_000).pieces(1, 10);
    let told = second.until(u64::MAX);
    assert_eq!(told, Some((30_010, Verdict::Stalled)), "nothing is known");
}

#[test]
fn without_another_worker_the_configured_time_holds() {
    let mut alone = watched().begun(100).pieces(60, 20);
    let since_ms = alone.now_ms;
    let mut last = None;
    while let Some((at_ms, verdict)) = alone.until(u64::MAX) {
        last = Some((at_ms - since_ms, verdict));
        if verdict == Verdict::Stalled {
            break;
        }
        assert_eq!(verdict, Verdict::Doubt, "asked again and again");
    }
    assert_eq!(last, Some((30_000, Verdict::Stalled)));
}

#[test]
fn what_a_worker_showed_holds_for_its_next_answer_from_the_turn_on() {
    let mut learnt = Learnt::default();
    for _ in 0..20 {
        let mut answer = Watched::new(learnt).begun(100);
        answer = answer.pieces(1, 80).pieces(40, 20);
        learnt = answer.vigil.learnt();
    }
    let paused = |tokens| Watched::new(learnt).begun(tokens).doubted_after();
    assert!((2_000..=2_100).contains(&paused(100)), "{}", paused(100));
    assert!(paused(2_000) > 4 * 20 * 80, "a larger prompt takes longer");
    let first = Watched::new(learnt).begun(100).pieces(1, 80);
    assert!(first.doubted_after() <= 2_100);
}

#[test]
fn a_reader_that_holds_the_worker_back_makes_no_gap_and_no_doubt() {
    let mut held = watched().begun(100).pieces(60, 20);
    let before = held.vigil.learnt();
    // It took ten seconds until somebody took the last piece.
    held.now_ms += 10_000;
    held.vigil.reads(held.now_ms);
    let since_ms = held.now_ms;
    held = held.pieces(1, 40);
    assert_eq!(held.vigil.learnt(), before, "not the worker's gap");
    let next = held.pieces(3, 20);
    assert!(next.now_ms - since_ms == 100);
    assert!(next.doubted_after() <= 2_100);
}

#[test]
fn a_look_that_comes_late_is_no_fault_of_the_worker() {
    let mut starved = watched().begun(100).pieces(60, 20);
    let since_ms = starved.now_ms;
    starved.now_ms += 5_000;
    assert_eq!(starved.vigil.judge(starved.now_ms), Verdict::Wait);
    let (at_ms, verdict) = starved.until(u64::MAX).expect("some time");
    assert_eq!(verdict, Verdict::Doubt);
    assert!(at_ms - since_ms > 6_900, "{}", at_ms - since_ms);
}

#[test]
fn a_quiet_link_is_a_doubt_at_once_until_the_next_piece() {
    let mut quiet = watched().begun(100).pieces(3, 1_000);
    quiet.vigil.quiet(quiet.now_ms + 10);
    let told = quiet.until(u64::MAX);
    assert_eq!(told, Some((3_010, Verdict::Doubt)));
    quiet.vigil.piece(3_020);
    quiet.now_ms = 3_020;
    assert_eq!(quiet.until(4_000), None);
}
