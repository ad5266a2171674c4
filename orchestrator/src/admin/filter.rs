//! Which workers an operator asks for. What does not fit is never sent: a fleet may have a hundred
//! thousand. (FLT-3)

use crate::fleet::{STATES, WorkerView};
use tether_wire::{ModelName, ModelRef, Region};

/// Rows that are given where nothing else is asked for.
pub const DEFAULT_LIMIT: usize = 1_000;
/// Most rows that can be asked for.
pub const MAX_LIMIT: usize = 100_000;
/// Most values of one kind in a question.
pub const MAX_VALUES: usize = 32;
/// Longest question, in bytes.
pub const MAX_QUERY_BYTES: usize = 4_096;
/// Those that get work, and those that get none or are chosen last: words for states that are asked
/// for, beside [`STATES`].
const ROUTABLE: &str = "routable";
const UNROUTABLE: &str = "unroutable";

/// What is asked for. Of one kind any value fits; of different kinds all must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    regions: Vec<Region>,
    models: Vec<Wanted>,
    states: Vec<String>,
    /// Most rows.
    pub(super) limit: usize,
    /// Whether the rows come with counts, in an object.
    pub(super) counts: bool,
}

/// A model: of one version, or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Any(ModelName),
    Exactly(ModelRef),
}

/// All words for states that can be asked for.
pub fn states() -> impl Iterator<Item = &'static str> + Clone {
    STATES.into_iter().chain([ROUTABLE, UNROUTABLE])
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            models: Vec::new(),
            states: Vec::new(),
            limit: DEFAULT_LIMIT,
            counts: false,
        }
    }
}

impl Filter {
    /// From the parameters of a query.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut filter = Self::default();
        for (key, value) in query {
            match key.as_str() {
                "region" => {
                    let region = Region::new(value).map_err(|error| error.to_string())?;
                    push(&mut filter.regions, region, key)?;
                }
                "model" => push(&mut filter.models, Wanted::parse(value)?, key)?,
                "state" => push(&mut filter.states, state(value)?, key)?,
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|it| (1..=MAX_LIMIT).contains(it));
                    filter.limit = limit.ok_or_else(|| {
                        format!(
                            "`limit` is not a number from 1 to {MAX_LIMIT}: `{}`",
                            shown(value)
                        )
                    })?;
                }
                "counts" => {
                    filter.counts = value.parse().map_err(|_| {
                        format!("`counts` is neither `true` nor `false`: `{}`", shown(value))
                    })?;
                }
                _ => {
                    return Err(format!(
                        "nothing is asked by `{}`: there are region, model, state, limit and counts",
                        shown(key)
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// Whether a worker is asked for, by what its card says.
    pub(super) fn takes(&self, worker: &WorkerView) -> bool {
        (self.regions.is_empty() || self.regions.contains(worker.region()))
            && (self.models.is_empty() || self.models.iter().any(|it| it.is_of(worker)))
    }

    /// Whether a node is asked for of which no card says where it is or what it serves.
    pub(super) fn takes_unknown(&self) -> bool {
        self.regions.is_empty() && self.models.is_empty()
    }

    /// Whether a row is asked for, by its state and whether it is routable.
    pub(super) fn takes_state(&self, state: &str, is_routable: bool) -> bool {
        let is_it = |wanted: &String| match wanted.as_str() {
            ROUTABLE => is_routable,
            UNROUTABLE => !is_routable,
            wanted => wanted == state,
        };
        self.states.is_empty() || self.states.iter().any(is_it)
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        let model = if text.contains('@') {
            text.parse().map(Self::Exactly)
        } else {
            ModelName::new(text).map(Self::Any)
        };
        model.map_err(|error| error.to_string())
    }

    /// Whether a worker serves it, or should and does not.
    fn is_of(&self, worker: &WorkerView) -> bool {
        let card = worker.card();
        let serves = card.models.iter().any(|offer| match self {
            Self::Any(name) => offer.model.name == *name,
            Self::Exactly(model) => offer.model == *model,
        });
        serves
            || card.faults.iter().any(|fault| match self {
                Self::Any(name) => fault.model.split('@').next() == Some(name.as_str()),
                Self::Exactly(model) => fault.model == model.to_string(),
            })
    }
}

fn push<T>(all: &mut Vec<T>, value: T, key: &str) -> Result<(), String> {
    if all.len() >= MAX_VALUES {
        return Err(format!("`{key}` is there more than {MAX_VALUES} times"));
    }
    all.push(value);
    Ok(())
}

fn state(text: &str) -> Result<String, String> {
    if states().any(|it| it == text) {
        return Ok(text.to_owned());
    }
    let all: Vec<&str> = states().collect();
    Err(format!(
        "there is no state `{}`: there are {}",
        shown(text),
        all.join(", ")
    ))
}

/// As much of a text as is said back.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Roster;
    use crate::testing::{id, offer, region, there};
    use tether_wire::card::ModelFault;

    fn parse(query: &[(&str, &str)]) -> Result<Filter, String> {
        let owned: Vec<(String, String)> = (query.iter())
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Filter::parse(&owned)
    }

    #[test]
    fn what_is_asked_for_wrongly_is_refused_with_what_there_is() {
        assert_eq!(parse(&[]), Ok(Filter::default()));
        for (query, words) in [
            (("state", "asleep"), "unroutable"),
            (("state", "Serving"), "suspect"),
            (("region", "No Region"), "region"),
            (("model", "no model!"), "model"),
            (("model", "tiny@x"), "MAJOR.MINOR"),
            (("limit", "0"), "1 to 100000"),
            (("limit", "100001"), "1 to 100000"),
            (("counts", "yes"), "true"),
            (
                ("stat", "serving"),
                "region, model, state, limit and counts",
            ),
        ] {
            let error = parse(&[query]).expect_err("refused");
            assert!(error.contains(words), "{query:?}: {error}");
        }
        let many = vec![("state", "serving"); MAX_VALUES];
        assert!(parse(&many).is_ok());
        let more = [many, vec![("state", "suspect")]].concat();
        assert!(parse(&more).expect_err("refused").contains("more than 32"));
        let long = "x".repeat(1_000);
        assert!(parse(&[("state", &long)]).expect_err("refused").len() < 200);
    }

    #[test]
    fn a_worker_is_found_by_region_and_by_models_that_it_serves_or_should() {
        let mut roster = Roster::default();
        there(&mut roster, 1, |it| {
            it.region = region("eu");
            it.worker.models = vec![offer("tiny@1.0", 7)];
            it.worker.faults = vec![ModelFault {
                model: "large@2.1".to_owned(),
                reason: "no room".to_owned(),
            }];
        });
        let fleet = roster.snapshot();
        let worker = fleet.worker(&id(1)).expect("there");
        for (query, takes) in [
            (vec![], true),
            (vec![("region", "eu")], true),
            (vec![("region", "us")], false),
            (vec![("region", "us"), ("region", "eu")], true),
            (vec![("model", "tiny")], true),
            (vec![("model", "tiny@1.0")], true),
            (vec![("model", "tiny@1.1")], false),
            (vec![("model", "large")], true),
            (vec![("model", "large@2.1")], true),
            (vec![("model", "large@2.0")], false),
            (vec![("model", "tiny"), ("region", "us")], false),
        ] {
            let filter = parse(&query).expect("allowed");
            assert_eq!(filter.takes(worker), takes, "{query:?}");
        }
    }

    #[test]
    fn states_that_are_asked_for_are_those_that_are_shown() {
        let takes = |states: &[&str], state, routable| {
            let query: Vec<_> = states.iter().map(|it| ("state", *it)).collect();
            parse(&query).expect("allowed").takes_state(state, routable)
        };
        assert!(takes(&[], "serving", true));
        assert!(takes(&["suspect", "draining"], "draining", false));
        assert!(!takes(&["suspect", "draining"], "serving", true));
        assert!(takes(&["unroutable"], "suspect", false));
        assert!(!takes(&["unroutable"], "serving", true));
        assert!(takes(&["routable"], "serving", true));
    }
}
