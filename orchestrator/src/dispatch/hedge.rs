//! A second worker beside one that has given nothing yet, where the tenant's policy wants it. (SCH-4)
//!
//! Some workers are slow for a moment, for reasons that nobody sees from outside; asking another one
//! after most answers would have begun cuts the longest waits for little more work (J. Dean, L. A.
//! Barroso, "The Tail at Scale", CACM, 2013; gRPC's `hedgingDelay`). Both get the same order with the
//! same seed. Who gives something first gives the answer, and the other's call is dropped, which ends
//! its work; so one answer is given, recorded and billed.
//!
//! It is extra work, and never at the cost of others: it comes out of the budget of retries, counts as
//! one of the request's attempts, and goes only to a worker with a free slot, of a model for which
//! nobody waits. Whether it is made is decided once for each attempt. An answer that has begun has no
//! hedge: a worker that stalls there is left for another anyhow ([`super::vigil`]).

use super::attempt::Attempt;
use super::hear::Heard;
use super::outcome::End;
use super::relay::unless;
use super::run::{Beside, Run, explain};
use super::{Dispatcher, Interrupt, Interrupts};
use crate::breaker::Outcome;
use crate::clock;
use crate::place::{Choice, Placed};
use std::time::Duration;
use tether_wire::NodeId;
use tether_wire::rpc::{Code, RpcError};

/// An attempt that has just begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// What the policy says.
    after_ms: Option<u32>,
    /// Whether some of the answer was given already, here or elsewhere.
    goes_on: bool,
    /// Attempts since, this one included, and the most that there may be.
    attempts: u32,
    most_attempts: u32,
    /// Until the request's deadline, and what an attempt needs of that at least.
    left_ms: u64,
    least_left_ms: u64,
}

impl Begun {
    /// After how long another worker is to be asked, where one is.
    fn due(&self) -> Option<Duration> {
        let after_ms = u64::from(self.after_ms?);
        let has_time = after_ms.saturating_add(self.least_left_ms) <= self.left_ms;
        let may = !self.goes_on && self.attempts < self.most_attempts && has_time;
        may.then(|| Duration::from_millis(after_ms))
    }
}

/// Why no other worker is asked although it is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Other requests wait for a place.
    OthersWait,
    /// Nobody who is not in doubt has a free slot.
    Nobody,
    /// Too much of the traffic of late was retries and hedges.
    Budget,
}

impl Why {
    /// Its name in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::OthersWait => "others-wait",
            Self::Nobody => "no-worker",
            Self::Budget => "no-budget",
        }
    }
}

/// Whether another worker is asked now. The budget is asked last, since asking it spends.
fn decide(
    others_wait: bool,
    somebody_is_free: bool,
    budget: impl FnOnce() -> bool,
) -> Result<(), Why> {
    if others_wait {
        return Err(Why::OthersWait);
    }
    if !somebody_is_free {
        return Err(Why::Nobody);
    }
    budget().then_some(()).ok_or(Why::Budget)
}

/// Whose outcome is that of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    First,
    Hedge,
}

/// What became of a hedge, as it is counted.
fn became(by: By, gives: bool, has_other_failed: bool) -> &'static str {
    match (by, gives, has_other_failed) {
        (By::Hedge, true, false) => "won",
        // It went on in the place of the first.
        (By::Hedge, true, true) => "adopted",
        (By::First, true, false) => "lost",
        (By::Hedge, false, _) | (By::First, _, true) => "failed",
        (By::First, false, false) => "cancelled",
    }
}

/// The other one may do better.
fn is_one_workers(end: &End) -> bool {
    match end {
        End::Fault(_) => true,
        // It had no turn for the request in time.
        End::Final(error) => error.code == Code::Overloaded,
        End::Done(_) | End::Cancelled => false,
    }
}

/// An attempt beside the first.
struct Hedge {
    attempt: Attempt,
    placed: Placed,
    /// Since the request came.
    after: Duration,
}

/// Who came first, and with what; or why neither did.
type Raced = Result<(By, Result<Heard, End>), Interrupt>;

impl Dispatcher {
    /// Waits for the first piece of an answer. What stands in `attempt` behind it is who gives it, or
    /// failed last; who failed before is told in `beside`.
    pub(super) async fn first_piece(
        &self,
        run: &mut Run,
        attempt: &mut Attempt,
        beside: &mut Option<(NodeId, RpcError)>,
        interrupt: &mut Interrupts,
    ) -> Result<Heard, End> {
        let mut hedge = None;
        let raced = self.race(run, attempt, &mut hedge, interrupt).await;
        let Some(hedge) = hedge else {
            let (_, heard) = raced.map_err(|why| self.cut(why, run, attempt))?;
            return heard;
        };
        let Hedge {
            attempt: mut other,
            placed,
            after,
        } = hedge;
        other.explained = run.orders.gave(&placed, after, true);
        let by = raced.as_ref().map_or(By::First, |(by, _)| *by);
        if by == By::Hedge {
            std::mem::swap(attempt, &mut other);
        }
        let has_other_failed = other.ended().is_some();
        let gives = matches!(&raced, Ok((_, Ok(_))));
        let is_tried = by == By::Hedge || has_other_failed;
        let second = if by == By::Hedge { &*attempt } else { &other };
        let second = (second.worker(), second.epoch());
        run.progress.hedged(second, by == By::Hedge, is_tried);
        run.beside = Beside::default();
        self.metrics.hedged(became(by, gives, has_other_failed));
        if !has_other_failed {
            let label = if gives { LOST } else { End::Cancelled.label() };
            self.over(&mut other, label, Outcome::Neutral);
        }
        let outcome = other.ended().unwrap_or(LOST);
        run.orders.ended(other.explained, outcome);
        *beside = other.fault.take().map(|fault| (other.worker(), fault));
        let (_, heard) = raced.map_err(|why| self.cut(why, run, attempt))?;
        let heard = heard?;
        if by == By::Hedge {
            placed.best().into_iter().for_each(|to| self.sends(run, to));
            let recorded = self.recorded(run, &attempt.candidate, &attempt.order);
            let recorded = unless(interrupt, recorded).await;
            recorded.map_err(|why| self.interrupted(why))??;
        }
        Ok(heard)
    }

    /// Begins an attempt, and another one beside it where that gives nothing for too long. One of
    /// them that fails leaves the other one to go on.
    async fn race(
        &self,
        run: &Run,
        attempt: &mut Attempt,
        hedge: &mut Option<Hedge>,
        interrupt: &mut Interrupts,
    ) -> Raced {
        let due = self.due(run);
        let first = self.begin(run, attempt);
        tokio::pin!(first);
        tokio::select! {
            biased;
            why = &mut *interrupt => return Err(why),
            heard = &mut first => return Ok((By::First, heard)),
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
        }
        *hedge = self.hedge(run);
        let Some(hedge) = hedge else {
            let heard = unless(interrupt, first).await?;
            return Ok((By::First, heard));
        };
        run.beside.asked(hedge.attempt.worker());
        let second = self.begin(run, &mut hedge.attempt);
        tokio::pin!(second);
        let (by, failed) = tokio::select! {
            biased;
            why = &mut *interrupt => return Err(why),
            heard = &mut first => (By::First, heard),
            heard = &mut second => (By::Hedge, heard),
        };
        match (by, failed) {
            (By::First, Err(end)) if is_one_workers(&end) => {
                tracing::info!("the second worker goes on in the place of the first");
                let heard = unless(interrupt, second).await?;
                Ok((By::Hedge, heard))
            }
            (By::Hedge, Err(_)) => {
                let heard = unless(interrupt, first).await?;
                Ok((By::First, heard))
            }
            first_piece_or_end => Ok(first_piece_or_end),
        }
    }

    /// After how long another worker is asked beside the one that is about to be.
    fn due(&self, run: &Run) -> Option<Duration> {
        let left = (run.deadline).saturating_duration_since(tokio::time::Instant::now());
        let begun = Begun {
            after_ms: run.rules.hedge_after().and_then(|it| it.value.ms()),
            goes_on: run.progress.goes_on(),
            attempts: run.progress.tries().attempts,
            most_attempts: self.config.retry.attempts,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            least_left_ms: self.config.retry.least_left_ms,
        };
        begun.due()
    }

    /// Chooses another worker, if one may be asked now.
    fn hedge(&self, run: &Run) -> Option<Hedge> {
        let now_ms = clock::now().mono_ms;
        let mut placed = self.rank(run, &run.progress.not_now(now_ms));
        let found = placed.ranked.len();
        (placed.ranked).retain(|it| !it.suspect && it.candidate.worker.is_free());
        let (barred, trial) = self.admit(&placed, &run.model);
        placed.pass_over(barred);
        if placed.ranked.len() < found {
            placed.choice = Choice {
                looked_at: placed.ranked.len(),
                equals: 1,
            };
        }
        let free = self.free((&run.model, &run.digest), run.rules.regions());
        let others_wait = !self.waiting.has_room(&run.model, free);
        let decided = decide(others_wait, trial.is_some(), || self.retries.hedge(now_ms));
        if let Err(why) = decided {
            tracing::info!(why = why.label(), "no second worker is asked");
            self.metrics.hedged(why.label());
            return None;
        }
        let number = run.progress.attempts() + 1;
        let attempt = Attempt::new(run, placed.best()?, trial?, number, true);
        attempt.span.in_scope(|| explain(&placed));
        tracing::info!(worker = %attempt.worker().short(), "a second worker is asked");
        Some(Hedge {
            attempt,
            placed,
            after: run.began.elapsed(),
        })
    }
}

/// How an attempt ended that was slower than the one beside it.
const LOST: &str = "lost";

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::{Done, Finish, Usage};

    const BEGUN: Begun = Begun {
        after_ms: Some(200),
        goes_on: false,
        attempts: 1,
        most_attempts: 3,
        left_ms: 1_000,
        least_left_ms: 100,
    };

    #[test]
    fn another_worker_is_asked_when_the_policy_says_and_never_without_it() {
        assert_eq!(BEGUN.due(), Some(Duration::from_millis(200)));
        let silent = Begun {
            after_ms: None,
            ..BEGUN
        };
        assert_eq!(silent.due(), None);
    }

    #[test]
    fn an_answer_that_goes_on_a_request_without_time_and_the_last_attempt_have_no_hedge() {
        for begun in [
            Begun {
                goes_on: true,
                ..BEGUN
            },
            Begun {
                attempts: 3,
                ..BEGUN
            },
            Begun {
                left_ms: 299,
                ..BEGUN
            },
        ] {
            assert_eq!(begun.due(), None, "{begun:?}");
        }
        let barely = Begun {
            attempts: 2,
            left_ms: 300,
            ..BEGUN
        };
        assert!(barely.due().is_some());
    }

    #[test]
    fn nothing_is_spent_where_others_wait_or_nobody_is_free() {
        let spends = || panic!("the budget was asked");
        assert_eq!(decide(true, true, spends), Err(Why::OthersWait));
        assert_eq!(decide(false, false, spends), Err(Why::Nobody));
        assert_eq!(decide(false, true, || false), Err(Why::Budget));
        assert_eq!(decide(false, true, || true), Ok(()));
    }

    #[test]
    fn a_worker_that_fails_leaves_the_other_and_the_tenants_own_mistake_ends_both() {
        let error = |code| RpcError::new(code, "x");
        assert!(is_one_workers(&End::Fault(error(Code::Internal))));
        assert!(is_one_workers(&End::Final(error(Code::Overloaded))));
        assert!(!is_one_workers(&End::Final(error(Code::Invalid))));
        assert!(!is_one_workers(&End::Cancelled));
        let done = Done {
            finish: Finish::Stop,
            usage: Usage::default(),
            receipt: None,
        };
        assert!(!is_one_workers(&End::Done(done)));
    }

    #[test]
    fn each_hedge_is_counted_as_one_thing() {
        assert_eq!(became(By::Hedge, true, false), "won");
        assert_eq!(became(By::Hedge, true, true), "adopted");
        assert_eq!(became(By::First, true, false), "lost");
        for (by, gives) in [(By::Hedge, false), (By::First, true), (By::First, false)] {
            assert_eq!(became(by, gives, true), "failed");
        }
        assert_eq!(became(By::First, false, false), "cancelled");
    }
}
