//! Honest requests, one after the other at a steady rate, and how each of them ended.
//!
//! # Layout
//!
//! * `answer` – what is asked, and whether the answer is the whole and right one

mod answer;

use crate::figures::Distribution;
use crate::mesh::client;
use answer::Answer;
pub(crate) use answer::Question;
use anyhow::bail;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most requests under way at once; beyond, the next are not asked and counted so.
const MOST_OPEN: usize = 256;

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// With the whole answer, and the right one.
    Whole,
    /// With an error before anything of an answer came.
    Refused(String),
    /// With an error after some of it, or in the middle of it.
    Cut(String),
    /// As if it were whole, and it was not.
    Wrong(String),
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    pub(crate) model: String,
    /// Which worker answered, where one did.
    pub(crate) worker: Option<String>,
    pub(crate) end: End,
}

/// A time in which something special holds for requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    /// Whether a request was asked then, or was under way when it began.
    pub(crate) fn covers(&self, asked: &Asked) -> bool {
        asked.at <= self.until && asked.at + asked.took >= self.from
    }
}

/// How many ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) whole: usize,
    pub(crate) refused: usize,
    pub(crate) cut: usize,
    pub(crate) wrong: usize,
}

impl Counts {
    pub(crate) fn of<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> Self {
        let mut counts = Self::default();
        for it in asked {
            *match it.end {
                End::Whole => &mut counts.whole,
                End::Refused(_) => &mut counts.refused,
                End::Cut(_) => &mut counts.cut,
                End::Wrong(_) => &mut counts.wrong,
            } += 1;
        }
        counts
    }

    pub(crate) fn all(&self) -> usize {
        self.whole + self.refused + self.cut + self.wrong
    }

    /// Heads of [`Counts::row`].
    pub(crate) const HEADS: [&'static str; 6] = [
        "requests",
        "asked",
        "whole and right",
        "failed before anything of an answer",
        "cut off in their answer, and told so",
        "presented as whole and not",
    ];

    /// A row of a table.
    pub(crate) fn row(&self, what: &str) -> Vec<String> {
        let counts = [self.all(), self.whole, self.refused, self.cut, self.wrong];
        let counts = counts.iter().map(ToString::to_string);
        std::iter::once(what.to_owned()).chain(counts).collect()
    }
}

/// What a gateway is asked, and as whom.
#[derive(Clone)]
pub(crate) struct Caller {
    client: reqwest::Client,
    url: String,
    key: String,
}

impl Caller {
    pub(crate) fn new(gateway: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            url: format!("{gateway}/v1/chat/completions"),
            key: key.to_owned(),
        })
    }

    /// One streamed answer. `began` is told the worker, and when its first piece comes.
    pub(crate) async fn ask(&self, question: &Question, began: impl FnMut(&str)) -> Asked {
        let at = Instant::now();
        let mut worker = None;
        let Question { model, text, .. } = question;
        let came = self.stream(model, text, &mut worker, began).await;
        Asked {
            at,
            took: at.elapsed(),
            model: model.clone(),
            worker,
            end: came.map_or_else(|end| end, |answer| answer.end(&question.answer)),
        }
    }

    /// A question whose right answer is the one that comes now: greedy answers are always the same.
    pub(crate) async fn learn(&self, model: &str, text: &str) -> anyhow::Result<Question> {
        let came = self.stream(model, text, &mut None, |_| ()).await;
        match came.and_then(Answer::whole) {
            Ok(answer) => Ok(Question {
                model: model.to_owned(),
                text: text.to_owned(),
                answer,
            }),
            Err(end) => bail!("{model} was asked {text:?}: {end:?}"),
        }
    }

    async fn stream(
        &self,
        model: &str,
        text: &str,
        worker: &mut Option<String>,
        mut began: impl FnMut(&str),
    ) -> Result<Answer, End> {
        let request = self
            .client
            .post(&self.url)
            .bearer_auth(&self.key)
            .json(&json!({
                "model": model,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "stream": true,
            }));
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(End::Refused(error.to_string())),
        };
        let status = response.status();
        if !status.is_success() {
            let text = response.text().await.unwrap_or_default();
            return Err(End::Refused(format!("{status}: {text}")));
        }
        let header = response.headers().get("x-tether-worker");
        *worker = header.and_then(|it| it.to_str().ok()).map(str::to_owned);
        let mut answer = Answer::default();
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    let is_first = answer.is_empty();
                    answer.take(&bytes);
                    if is_first && !answer.is_empty() {
                        began(worker.as_deref().unwrap_or_default());
                    }
                }
                Ok(None) => return Ok(answer),
                Err(error) => return Err(End::Cut(error.to_string())),
            }
        }
    }
}

/// Requests at a steady rate, until it is stopped.
pub(crate) struct Load {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Load {
    /// Asks so many times in a second, in turns each of some questions.
    pub(crate) fn start(caller: Caller, per_s: f64, questions: Vec<Question>) -> Self {
        let load = Self {
            asked: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (asked, stop, tasks) = (load.asked.clone(), load.stop.clone(), load.tasks.clone());
        let room = Arc::new(Semaphore::new(MOST_OPEN));
        load.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for question in questions.into_iter().cycle() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let (caller, asked) = (caller.clone(), asked.clone());
                // Where there is no room the load is held up, which the count of requests shows.
                let Ok(place) = room.clone().acquire_owned().await else {
                    return;
                };
                tasks.spawn(async move {
                    let one = caller.ask(&question, |_| ()).await;
                    lock(&asked).push(one);
                    drop(place);
                });
            }
        });
        load
    }

    /// Asks no more, and waits for the last answers.
    pub(crate) async fn stop(self) -> Vec<Asked> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::mem::take(&mut lock(&self.asked))
    }
}

/// Milliseconds of whole answers.
pub(crate) fn times<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> Distribution {
    (asked.into_iter())
        .filter(|it| it.end == End::Whole)
        .map(|it| it.took.as_secs_f64() * 1e3)
        .collect()
}

/// The first words against those that failed, for people.
pub(crate) fn complaints<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> Vec<String> {
    (asked.into_iter())
        .filter_map(|it| match &it.end {
            End::Whole => None,
            End::Refused(why) => Some(format!("refused: {why}")),
            End::Cut(why) => Some(format!("cut: {why}")),
            End::Wrong(why) => Some(format!("wrong: {why}")),
        })
        .take(20)
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_apart() {
        let asked = |end| Asked {
            at: Instant::now(),
            took: Duration::from_millis(5),
            model: String::new(),
            worker: None,
            end,
        };
        let all = [
            asked(End::Whole),
            asked(End::Refused("a".to_owned())),
            asked(End::Cut("b".to_owned())),
            asked(End::Whole),
        ];
        let counts = Counts::of(&all);
        assert_eq!(
            (counts.whole, counts.refused, counts.cut, counts.wrong),
            (2, 1, 1, 0)
        );
        assert_eq!(counts.all(), 4);
        assert_eq!(times(&all).len(), 2);
        assert_eq!(complaints(&all), ["refused: a", "cut: b"]);
    }

    #[test]
    fn a_request_that_was_under_way_when_a_window_began_is_in_it() {
        let now = Instant::now();
        let s = Duration::from_secs;
        let asked = |after, took| Asked {
            at: now + s(after),
            took: s(took),
            model: String::new(),
            worker: None,
            end: End::Whole,
        };
        let window = Window {
            from: now + s(10),
            until: now + s(12),
        };
        assert!(!window.covers(&asked(1, 2)));
        assert!(window.covers(&asked(9, 2)), "under way");
        assert!(window.covers(&asked(11, 5)));
        assert!(!window.covers(&asked(13, 1)));
    }
}
