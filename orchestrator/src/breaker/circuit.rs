//! One breaker, whatever it stands before: closed, open, half open. Pure.

use super::settings::{BreakerSettings, Threshold};
use super::shown::Shown;
use super::{Outcome, State, Verdict};
use crate::window::Window;
use rand::Rng;
use tether_wire::NodeId;

/// Kinds in the window.
const SUCCESS: usize = 0;
const FAULT: usize = 1;

/// What a breaker is held to, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub(super) settings: &'a BreakerSettings,
    pub(super) threshold: Threshold,
    pub(super) now_ms: u64,
    /// The order that the next request will have; all that began have lower ones.
    pub(super) next: u64,
}

/// An outcome as a breaker is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// The request's place in the order of all.
    pub(super) order: u64,
    pub(super) worker: NodeId,
    pub(super) outcome: Outcome,
}

/// What an outcome did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing: the breaker opened or its worker booted since the request began.
    Late,
    /// It was counted.
    Counted,
    /// The breaker opened or closed.
    Turned,
}

/// One breaker.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    phase: Phase,
    /// What began before this order belongs to a phase that is over, and does not count.
    since: u64,
    /// Boot epoch of the worker; 0 for what does not boot.
    epoch: u64,
    recent: Window,
    row: Row,
    /// Workers that failed last, each once, the latest last: as many as must fail, and when.
    accused: Vec<(NodeId, u64)>,
    /// Times that it opened without a calm between.
    openings: u32,
    lasted_ms: u64,
    touched_ms: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed { since_ms: u64 },
    Open { since_ms: u64, until_ms: u64 },
    HalfOpen { dark: Vec<Dark>, successes: u32 },
}

/// A request in the dark: let through by a half-open breaker, and nothing came of it yet.
#[derive(Clone, Copy, Debug)]
struct Dark {
    order: u64,
    until_ms: u64,
}

/// Faults with no success between them.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    faults: u32,
    since_ms: u64,
    last_ms: u64,
}

impl Circuit {
    pub(super) fn closed(epoch: u64, now_ms: u64) -> Self {
        Self {
            phase: Phase::Closed { since_ms: now_ms },
            since: 0,
            epoch,
            recent: Window::default(),
            row: Row::default(),
            accused: Vec::new(),
            openings: 0,
            lasted_ms: 0,
            touched_ms: now_ms,
        }
    }

    pub(super) fn verdict(&self, epoch: u64, at: &Moment<'_>) -> Verdict {
        if epoch > self.epoch {
            return Verdict::Probe;
        }
        match &self.phase {
            Phase::Closed { .. } => Verdict::Yes,
            Phase::Open { since_ms, until_ms } => {
                if (*since_ms..*until_ms).contains(&at.now_ms) {
                    return Verdict::No {
                        until_ms: *until_ms,
                        is_tried: false,
                    };
                }
                Verdict::Probe
            }
            Phase::HalfOpen { dark, .. } => {
                if self.room(epoch, at) > 0 {
                    return Verdict::Probe;
                }
                let live = dark.iter().filter(|it| it.is_live(at));
                let first = live.map(|it| it.until_ms).min();
                Verdict::No {
                    until_ms: first.unwrap_or(at.now_ms),
                    is_tried: true,
                }
            }
        }
    }

    /// How many more requests it lets through now.
    pub(super) fn room(&self, epoch: u64, at: &Moment<'_>) -> u32 {
        let dark = match &self.phase {
            Phase::Closed { .. } if epoch <= self.epoch => return u32::MAX,
            Phase::Open { since_ms, until_ms }
                if epoch <= self.epoch && (*since_ms..*until_ms).contains(&at.now_ms) =>
            {
                return 0;
            }
            Phase::HalfOpen { dark, .. } if epoch <= self.epoch => {
                dark.iter().filter(|it| it.is_live(at)).count()
            }
            // Half open from the next request on.
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        };
        let dark = u32::try_from(dark).unwrap_or(u32::MAX);
        at.settings.probes.saturating_sub(dark)
    }

    pub(super) fn state(&self, epoch: u64, at: &Moment<'_>) -> State {
        match (&self.phase, self.verdict(epoch, at)) {
            (Phase::Open { .. }, Verdict::No { until_ms, .. }) => State::Open { until_ms },
            (Phase::Closed { .. }, Verdict::Yes) => State::Closed,
            _ => State::HalfOpen,
        }
    }

    /// A request that the verdict let through begins.
    pub(super) fn begin(&mut self, epoch: u64, order: u64, at: &Moment<'_>) {
        let boots = epoch > self.epoch;
        self.epoch = self.epoch.max(epoch);
        if boots || matches!(self.phase, Phase::Open { .. }) {
            self.half_open(order, at);
        }
        if let Phase::HalfOpen { dark, .. } = &mut self.phase {
            let until_ms = at.now_ms.saturating_add(at.settings.probe_timeout_ms);
            dark.retain(|it| it.is_live(at));
            dark.push(Dark { order, until_ms });
            self.touched_ms = at.now_ms;
        }
    }

    /// The answer began: the request is in the dark no more. Where many work, it also shows that
    /// not everything fails; what is known of one worker waits for the whole answer.
    pub(super) fn first_piece(&mut self, order: u64, at: &Moment<'_>) {
        self.light(order);
        if order >= self.since && at.threshold.workers > 1 {
            self.row = Row::default();
        }
    }

    /// Takes an outcome in.
    pub(super) fn end(&mut self, ended: &Ended, at: &Moment<'_>, rng: &mut impl Rng) -> Taken {
        self.light(ended.order);
        if ended.order < self.since {
            return Taken::Late;
        }
        let before = self.since;
        match ended.outcome {
            Outcome::Neutral => {}
            Outcome::Success => self.succeeded(at),
            Outcome::Fault => self.failed(ended.worker, at, rng),
        }
        if self.since == before {
            Taken::Counted
        } else {
            Taken::Turned
        }
    }

    fn light(&mut self, order: u64) {
        if let Phase::HalfOpen { dark, .. } = &mut self.phase {
            dark.retain(|it| it.order != order);
        }
    }

    fn succeeded(&mut self, at: &Moment<'_>) {
        self.recent.add(SUCCESS, at.settings.window_ms, at.now_ms);
        self.row = Row::default();
        self.touched_ms = at.now_ms;
        if let Phase::HalfOpen { successes, .. } = &mut self.phase {
            *successes += 1;
            if *successes >= at.settings.closing_successes {
                let since_ms = at.now_ms;
                self.turn(Phase::Closed { since_ms }, at.next);
            }
        }
    }

    fn failed(&mut self, worker: NodeId, at: &Moment<'_>, rng: &mut impl Rng) {
        self.recent.add(FAULT, at.settings.window_ms, at.now_ms);
        self.row.count(at);
        self.accuse(worker, at);
        self.touched_ms = at.now_ms;
        let opens = match &self.phase {
            Phase::Closed { .. } => self.is_tripped(at),
            // A bad worker among good ones does not show that its model or region is bad again.
            Phase::HalfOpen { .. } => self.accused.len() >= witnesses(at),
            Phase::Open { .. } => false,
        };
        if opens {
            self.open(at, rng);
        }
    }

    fn accuse(&mut self, worker: NodeId, at: &Moment<'_>) {
        self.accused.retain(|(it, _)| *it != worker);
        if self.accused.len() >= witnesses(at) {
            self.accused.remove(0);
        }
        self.accused.push((worker, at.now_ms));
    }

    fn is_tripped(&self, at: &Moment<'_>) -> bool {
        let (threshold, window_ms) = (&at.threshold, at.settings.window_ms);
        let recent = |(_, when): &&(NodeId, u64)| at.now_ms.saturating_sub(*when) < window_ms;
        if self.accused.iter().filter(recent).count() < witnesses(at) {
            return false;
        }
        let lasted_ms = at.now_ms.saturating_sub(self.row.since_ms);
        let lasts = threshold.workers == 1 || lasted_ms >= at.settings.outage_ms;
        if self.row.faults >= threshold.faults_in_row && lasts {
            return true;
        }
        let [successes, faults] = self.recent.sums(window_ms, at.now_ms);
        let requests = f64::from(successes) + f64::from(faults);
        requests >= f64::from(threshold.least_requests)
            && f64::from(faults) >= f64::from(threshold.failure_rate) * requests
    }

    fn open(&mut self, at: &Moment<'_>, rng: &mut impl Rng) {
        self.forgive(at);
        let doubled = 2_u64.saturating_pow(self.openings);
        let most = (at.settings.open_ms.saturating_mul(doubled)).min(at.settings.max_open_ms);
        self.openings = self.openings.saturating_add(1);
        self.lasted_ms = rng.random_range(most.div_ceil(2)..=most);
        let until_ms = at.now_ms.saturating_add(self.lasted_ms);
        let since_ms = at.now_ms;
        self.turn(Phase::Open { since_ms, until_ms }, at.next);
    }

    fn half_open(&mut self, order: u64, at: &Moment<'_>) {
        self.forgive(at);
        let phase = Phase::HalfOpen {
            dark: Vec::new(),
            successes: 0,
        };
        self.turn(phase, order);
    }

    /// A breaker that was closed long enough opens as if for the first time.
    fn forgive(&mut self, at: &Moment<'_>) {
        if let Phase::Closed { since_ms } = self.phase
            && at.now_ms.saturating_sub(since_ms) >= self.calm_ms(at)
        {
            self.openings = 0;
        }
    }

    fn calm_ms(&self, at: &Moment<'_>) -> u64 {
        let twice = self.lasted_ms.saturating_mul(2);
        at.settings.window_ms.max(twice)
    }

    fn turn(&mut self, phase: Phase, since: u64) {
        self.phase = phase;
        self.since = since;
        self.recent = Window::default();
        self.row = Row::default();
        self.accused = Vec::new();
    }

    /// Whether nothing would be different without it.
    pub(super) fn is_spent(&self, at: &Moment<'_>) -> bool {
        let idle_ms = at.now_ms.saturating_sub(self.touched_ms);
        let keep_ms = match &self.phase {
            Phase::Closed { since_ms } => {
                let closed_ms = at.now_ms.saturating_sub(*since_ms);
                if closed_ms < self.calm_ms(at) {
                    return false;
                }
                at.settings.window_ms
            }
            // Nobody asks for it any more, or the worker is gone.
            Phase::Open { .. } | Phase::HalfOpen { .. } => (at.settings.max_open_ms)
                .saturating_mul(2)
                .saturating_add(at.settings.probe_timeout_ms),
        };
        idle_ms > keep_ms
    }

    /// What people are shown of it.
    pub(super) fn shown(&self, epoch: u64, at: &Moment<'_>) -> Shown {
        let [successes, faults] = self.recent.sums(at.settings.window_ms, at.now_ms);
        Shown {
            state: self.state(epoch, at),
            successes,
            faults,
            openings: self.openings,
        }
    }
}

impl Dark {
    /// Whether it may still have its place. A clock that went back makes no lease longer.
    fn is_live(&self, at: &Moment<'_>) -> bool {
        (1..=at.settings.probe_timeout_ms).contains(&self.until_ms.saturating_sub(at.now_ms))
    }
}

impl Row {
    fn count(&mut self, at: &Moment<'_>) {
        let apart_ms = at.now_ms.saturating_sub(self.last_ms);
        if self.faults == 0 || apart_ms > at.settings.window_ms {
            *self = Self {
                faults: 0,
                since_ms: at.now_ms,
                last_ms: at.now_ms,
            };
        }
        self.faults = self.faults.saturating_add(1);
        self.since_ms = self.since_ms.min(at.now_ms);
        self.last_ms = at.now_ms;
    }
}

fn witnesses(at: &Moment<'_>) -> usize {
    usize::try_from(at.threshold.workers).unwrap_or(usize::MAX)
}
