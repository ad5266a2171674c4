//! Answers under way, by their job: a key that comes again joins what its first request began.
//! (RSV-1)

use super::log::{AnswerLog, Ended, Held, Reader};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::{CorrelationId, Digest};

/// The answers under way. Cheap to clone. As many as there are requests under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    answers: Arc<Mutex<HashMap<CorrelationId, Answer>>>,
    held: Held,
}

#[derive(Clone, Debug)]
struct Answer {
    request_hash: Digest,
    log: AnswerLog,
}

/// What a request finds.
#[derive(Debug)]
pub(crate) enum Entered {
    /// Nothing: it is the one that runs. Whoever drops the place lets others run.
    First(Place, Reader),
    /// The same request is under way.
    Joined(Reader),
    /// The same request is under way and about to end, since nobody was left to read it.
    Ending(AnswerLog),
    /// Another request is under way under the same key.
    Another,
}

impl Running {
    /// Comes with a request.
    pub(crate) fn enter(&self, job: CorrelationId, request_hash: Digest) -> Entered {
        let mut answers = self.answers();
        if let Some(answer) = answers.get(&job) {
            if answer.request_hash != request_hash {
                return Entered::Another;
            }
            return match answer.log.join() {
                Some(reader) => Entered::Joined(reader),
                None => Entered::Ending(answer.log.clone()),
            };
        }
        let (log, reader) = AnswerLog::new(self.held.clone());
        let answer = Answer {
            request_hash,
            log: log.clone(),
        };
        answers.insert(job, answer);
        let place = Place {
            running: self.clone(),
            job,
            log,
        };
        Entered::First(place, reader)
    }

    /// Whether they hold so much together that no further request is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.held.is_over()
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn answers(&self) -> MutexGuard<'_, HashMap<CorrelationId, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a run. Whatever becomes of the run, dropping this ends its answer.
#[derive(Debug)]
pub(crate) struct Place {
    running: Running,
    job: CorrelationId,
    log: AnswerLog,
}

impl Place {
    /// The answer.
    pub(crate) fn log(&self) -> &AnswerLog {
        &self.log
    }

    /// Ends the answer. Whoever hears of the end and comes again finds the place free.
    pub(crate) fn end(self, end: Ended) {
        self.leave();
        self.log.end(end);
    }

    /// Another run may have the place already where this one left it before.
    fn leave(&self) {
        let mut answers = self.running.answers();
        if (answers.get(&self.job)).is_some_and(|answer| answer.log.is(&self.log)) {
            answers.remove(&self.job);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        self.log.end(Err(super::failed_here()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const JOB: CorrelationId = CorrelationId([1; 16]);
    const HASH: Digest = Digest([1; 32]);

    #[test]
    fn a_key_that_comes_again_joins_and_another_body_does_not() {
        let running = Running::default();
        let Entered::First(place, reader) = running.enter(JOB, HASH) else {
            panic!("nobody is there")
        };
        let Entered::Joined(second) = running.enter(JOB, HASH) else {
            panic!("it runs")
        };
        assert!(matches!(
            running.enter(JOB, Digest([2; 32])),
            Entered::Another
        ));
        drop((reader, second));
        let Entered::Ending(log) = running.enter(JOB, HASH) else {
            panic!("all left")
        };
        assert!(log.ended().now_or_never().is_none());
        drop(place);
        assert!(log.ended().now_or_never().is_some());
        assert!(matches!(running.enter(JOB, HASH), Entered::First(..)));
    }

    #[test]
    fn a_run_that_panics_ends_its_answer() {
        let running = Running::default();
        let Entered::First(place, mut reader) = running.enter(JOB, HASH) else {
            panic!("nobody is there")
        };
        drop(place);
        let end = reader.next().now_or_never().expect("at once");
        assert!(end.is_err());
    }
}
