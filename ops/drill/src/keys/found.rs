//! What was measured, as a report.

use super::ask::{Content, Told};
use crate::figures::Distribution;
use crate::report::Report;
use serde_json::{Value, json};

/// What became of a key.
pub(super) struct Key {
    /// What it was told, sent many times at once, while its orchestrator was killed.
    pub(super) first: Vec<Told>,
    /// Whether that was while the answer streamed.
    pub(super) struck: bool,
    /// The same once more, when the orchestrator was back.
    pub(super) again: Vec<Told>,
    /// Another request under it.
    pub(super) other: Told,
}

impl Key {
    fn all(&self) -> impl Iterator<Item = &Told> {
        self.first.iter().chain(&self.again)
    }

    /// The answer, where all were whole and told the same.
    fn answer(&self) -> Option<&Content> {
        let answer = &self.first.first()?.content;
        let is_it = |told: &Told| told.error.is_none() && told.content == *answer;
        (self.all().all(is_it) && answer.finish.is_some()).then_some(answer)
    }

    /// Whether another request was refused, and told why.
    fn is_held(&self) -> bool {
        self.other.error.as_ref().is_some_and(|(status, said)| {
            *status == 409 && said.contains("key was already used for another request")
        })
    }
}

/// All keys, with one form of the store.
pub(super) struct Form {
    pub(super) name: &'static str,
    pub(super) keys: Vec<Key>,
    /// What `tether store check` says at the end.
    pub(super) store: Value,
}

impl Form {
    /// What the store has to say where each key was one run.
    fn due(&self) -> Value {
        let answers = || self.keys.iter().filter_map(Key::answer);
        let sum = |of: &str| answers().map(|it| it.counted(of)).sum::<u64>();
        json!({
            "jobs": self.keys.len(),
            "open_jobs": 0,
            "done_jobs": self.keys.len(),
            "billed": {
                "prompt_tokens": sum("prompt_tokens"),
                "completion_tokens": sum("completion_tokens"),
            },
            "problems": [],
        })
    }

    fn is_billed_once(&self) -> bool {
        let due = self.due();
        let fields = due.as_object().into_iter().flatten();
        fields.into_iter().all(|(name, it)| self.store[name] == *it)
    }

    fn row(&self) -> Vec<String> {
        let count = |is: fn(&Key) -> bool| self.keys.iter().filter(|it| is(it)).count();
        let told = || self.keys.iter().flat_map(Key::all);
        let cells = [
            json!(self.keys.len()),
            json!(count(|it| it.struck)),
            json!(told().filter(|it| it.error.is_none()).count()),
            json!(told().filter(|it| it.error.is_some()).count()),
            json!(count(|it| it.answer().is_some())),
            json!(count(Key::is_held)),
            self.store["jobs"].clone(),
            self.store["billed"]["completion_tokens"].clone(),
            self.due()["billed"]["completion_tokens"].clone(),
        ];
        let cells = cells.iter().map(ToString::to_string);
        std::iter::once(self.name.to_owned()).chain(cells).collect()
    }

    /// Milliseconds that the last of all that were sent at once waited for its answer.
    fn last(&self, of: fn(&Key) -> &[Told]) -> Distribution {
        let last = |key| of(key).iter().map(|it| it.took).max();
        let keys = self.keys.iter().filter_map(last);
        keys.map(|took| took.as_secs_f64() * 1e3).collect()
    }
}

/// What was measured.
pub(super) struct Found {
    /// Times that a key was sent at once.
    pub(super) times: usize,
    pub(super) forms: Vec<Form>,
}

impl Found {
    pub(super) fn report(&self, workers: usize) -> Report {
        let mut report = Report::new(
            "keys",
            format!(
                "a gateway, {workers} workers with the real engine; each `Idempotency-Key` {times} \
                 times at once, streamed and not, in turns, its orchestrator killed by `kill -9` \
                 meanwhile, and {times} times again; temperature 0.8 without a seed",
                times = self.times,
            ),
        );
        let rows: Vec<_> = self.forms.iter().map(Form::row).collect();
        report.table(
            &[
                "store",
                "keys",
                "killed while the answer streamed",
                "whole answers",
                "failed",
                "keys with equal answers",
                "another body: 409",
                "jobs",
                "tokens billed",
                "tokens of one answer for each key",
            ],
            &rows,
        );
        let names: Vec<[String; 2]> = (self.forms.iter())
            .map(|form| ["under the kill", "again"].map(|wave| format!("{}, {wave}", form.name)))
            .collect();
        let lasts = self.forms.iter().zip(&names).flat_map(|(form, names)| {
            [
                (names[0].as_str(), form.last(|key| &key.first)),
                (names[1].as_str(), form.last(|key| &key.again)),
            ]
        });
        let head = "ms until the last of all had its answer";
        report.distributions(head, 0, &lasts.collect::<Vec<_>>());
        for form in &self.forms {
            self.judge(form, &mut report);
        }
        report
    }

    fn judge(&self, form: &Form, report: &mut Report) {
        let name = form.name;
        let keys = form.keys.len();
        let promise = |report: &mut Report, what: &str, is: fn(&Key) -> bool| {
            let held = form.keys.iter().filter(|it| is(it)).count();
            let found = format!("{held} of {keys}");
            report.promise(&format!("{name}: {what}"), held == keys && keys > 0, found);
        };
        let struck = form.keys.iter().filter(|it| it.struck).count();
        let what = format!("{name}: 9 of 10 kills came while the answer streamed");
        report.promise(&what, keys > 0 && struck * 10 >= keys * 9, struck);
        let equal = "all answers under a key are whole and equal: text, tokens, receipt, usage, seed, \
                     finish, id";
        promise(report, equal, |it| it.answer().is_some());
        let held = "another body under the key is a 409 that says so";
        promise(report, held, Key::is_held);
        let what = format!("{name}: each key is one job, whole, billed once");
        report.promise(&what, form.is_billed_once(), &form.store["jobs"]);
        let complaints = (form.keys.iter()).flat_map(Key::all);
        let complaints: Vec<_> = complaints.filter_map(|it| it.error.clone()).collect();
        let unequal = (form.keys.iter()).filter_map(|key| {
            let first = &key.first.first()?.content;
            let other = (key.all()).find(|it| it.error.is_none() && it.content != *first)?;
            Some(json!([
                format!("{first:?}"),
                format!("{:?}", other.content)
            ]))
        });
        report.sample(
            name,
            json!({
                "complaints": complaints.iter().take(20).collect::<Vec<_>>(),
                "unequal": unequal.take(3).collect::<Vec<_>>(),
                "others": form.keys.iter().map(|it| json!(it.other.error)).take(3).collect::<Vec<_>>(),
                "store": {"due": form.due(), "found": form.store},
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        let content = Content {
            text: text.to_owned(),
            finish: Some("stop".to_owned()),
            usage: json!({"prompt_tokens": 3, "completion_tokens": 5}),
            ..Content::default()
        };
        Told {
            content,
            ..Told::default()
        }
    }

    fn found(change: impl FnOnce(&mut Form)) -> Vec<String> {
        let why = "this idempotency key was already used for another request; use a new key";
        let key = Key {
            first: vec![told("a"), told("a")],
            struck: true,
            again: vec![told("a"), told("a")],
            other: Told {
                error: Some((409, why.to_owned())),
                ..Told::default()
            },
        };
        let store = json!({
            "jobs": 1, "open_jobs": 0, "done_jobs": 1, "problems": [],
            "billed": {"prompt_tokens": 3, "completion_tokens": 5},
        });
        let mut form = Form {
            name: "f",
            keys: vec![key],
            store,
        };
        change(&mut form);
        let found = Found {
            times: 2,
            forms: vec![form],
        };
        found.report(2).broken_names()
    }

    #[test]
    fn a_key_that_is_one_run_keeps_every_promise() {
        assert_eq!(found(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn another_answer_a_second_bill_and_a_taken_key_are_told() {
        let one = |change: fn(&mut Form)| found(change).len();
        assert_eq!(one(|it| it.keys[0].again[1].content.text.push('b')), 2);
        let failed = |it: &mut Form| it.keys[0].first[1].error = Some((0, "cut".to_owned()));
        assert_eq!(one(failed), 2, "nothing says what the bill should be");
        assert_eq!(
            one(|it| it.store["billed"]["completion_tokens"] = 10.into()),
            1
        );
        assert_eq!(one(|it| it.store["jobs"] = 2.into()), 1);
        assert_eq!(one(|it| it.keys[0].other = told("a")), 1);
        assert_eq!(one(|it| it.keys[0].struck = false), 1);
        assert_eq!(one(|it| it.keys.clear()), 4);
    }
}
