//! Affinity of a worker to a request. Pure; each term is between 0 and 1 and recorded. (SCH-1)

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use tether_wire::{Digest, Region, Tier};

/// Most that a term may count.
const MAX_WEIGHT: f32 = 100.0;

/// How much each term counts, from 0 to 100; 0 leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// The worker serves exactly the artifact that is wanted.
    #[serde(deserialize_with = "weight")]
    pub model: f32,
    /// It stands in the region of the request.
    #[serde(deserialize_with = "weight")]
    pub region: f32,
    /// Its accelerator is of the class that is wanted.
    #[serde(deserialize_with = "weight")]
    pub gpu_class: f32,
    /// Little waits there: inverse of the load per slot.
    #[serde(deserialize_with = "weight")]
    pub queue: f32,
    /// The model is loaded.
    #[serde(deserialize_with = "weight")]
    pub warm: f32,
    /// It was sent a prompt before that begins as this one. (SCH-2)
    #[serde(deserialize_with = "weight")]
    pub prefix: f32,
    /// It is trusted.
    #[serde(deserialize_with = "weight")]
    pub trust: f32,
    /// It is cheap.
    #[serde(deserialize_with = "weight")]
    pub price: f32,
    /// It was quick of late.
    #[serde(deserialize_with = "weight")]
    pub latency: f32,
}

/// The value where it is within its limits, and otherwise what is wrong.
pub(crate) fn ranged(value: f32, least: f32, most: f32) -> Result<f32, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(format!("is {value}, not between {least} and {most}"))
}

/// Refused where it is read, so that a mistake is told with its line.
fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    ranged(f32::deserialize(from)?, 0.0, MAX_WEIGHT).map_err(D::Error::custom)
}

impl Default for Weights {
    /// The queue counts most: among workers that can serve at all, waiting is what callers feel.
    fn default() -> Self {
        Self {
            model: 1.0,
            region: 1.0,
            gpu_class: 0.5,
            queue: 2.0,
            warm: 1.0,
            prefix: 1.0,
            trust: 0.5,
            price: 0.25,
            latency: 0.25,
        }
    }
}

impl Weights {
    fn each(&self) -> [f32; TERMS] {
        [
            self.model,
            self.region,
            self.gpu_class,
            self.queue,
            self.warm,
            self.prefix,
            self.trust,
            self.price,
            self.latency,
        ]
    }

    /// Checks that each is a number from 0 to 100 and that not all are 0.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if (self.each().iter()).any(|it| !(0.0..=MAX_WEIGHT).contains(it)) {
            return Err(format!("must each be between 0 and {MAX_WEIGHT}"));
        }
        if self.each().iter().all(|w| *w == 0.0) {
            return Err("are all 0, so that every worker is as good as any".to_owned());
        }
        Ok(())
    }
}

/// What a request wants.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The region that it came from.
    pub region: &'a Region,
    /// The artifact, where one is released.
    pub digest: Option<Digest>,
    /// The class of accelerator, where it matters.
    pub gpu_class: Option<&'a str>,
}

/// What is known about a worker when a request is placed.
#[derive(Clone, Debug)]
pub struct Traits<'a> {
    /// Where it stands.
    pub region: &'a Region,
    /// The artifact that it serves.
    pub digest: Digest,
    /// Class of its accelerator.
    pub gpu_class: &'a str,
    /// Requests that run or wait there, by the best knowledge.
    pub load: f32,
    /// Requests that it runs at once.
    pub capacity: u32,
    /// Whether the model is loaded.
    pub warm: bool,
    /// How far it is believed.
    pub tier: Tier,
    /// Micro-credits for a thousand tokens.
    pub price_per_1k_micro: u64,
    /// Milliseconds to the first token, median of late; 0 is unknown.
    pub first_token_ms: u32,
}

/// The terms of one candidate, each between 0 and 1, before weighting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Terms {
    /// See [`Weights::model`].
    pub model: f32,
    /// See [`Weights::region`].
    pub region: f32,
    /// See [`Weights::gpu_class`].
    pub gpu_class: f32,
    /// See [`Weights::queue`].
    pub queue: f32,
    /// See [`Weights::warm`].
    pub warm: f32,
    /// See [`Weights::prefix`].
    pub prefix: f32,
    /// See [`Weights::trust`].
    pub trust: f32,
    /// See [`Weights::price`].
    pub price: f32,
    /// See [`Weights::latency`].
    pub latency: f32,
}

/// Price at which the term is one half, in micro-credits for a thousand tokens.
const HALF_PRICE_MICRO: f32 = 1_000.0;
/// Time to the first token at which the term is one half: the objective of a small model.
const HALF_LATENCY_MS: f32 = 200.0;
/// Blocks at which the term is one half: what they save is some milliseconds even on a slow worker,
/// and of a long beginning each further block matters less than that it is there at all.
const HALF_PREFIX_BLOCKS: f32 = 4.0;
/// Terms of the score.
const TERMS: usize = 9;

/// The term of a worker that was sent so many blocks of the prompt's beginning before. It counts only
/// where the worker has not too much to do, which nobody knows who sees but one of them.
#[must_use]
pub fn prefix(blocks: u32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a score needs no more than seven digits"
    )]
    let blocks = blocks as f32;
    blocks / (blocks + HALF_PREFIX_BLOCKS)
}

/// The terms of one worker for one request, without that of the prefix.
#[must_use]
pub fn terms(wanted: &Wanted<'_>, worker: &Traits<'_>) -> Terms {
    let yes = |it: bool| if it { 1.0 } else { 0.0 };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a score needs no more than seven digits"
    )]
    let (slots, price, latency) = (
        worker.capacity.max(1) as f32,
        worker.price_per_1k_micro as f32,
        worker.first_token_ms as f32,
    );
    Terms {
        model: yes(wanted.digest.is_none_or(|digest| digest == worker.digest)),
        region: yes(wanted.region == worker.region),
        gpu_class: yes(wanted
            .gpu_class
            .is_none_or(|class| class == worker.gpu_class)),
        queue: 1.0 / (1.0 + worker.load / slots),
        warm: yes(worker.warm),
        prefix: 0.0,
        trust: yes(worker.tier == Tier::Trusted),
        price: 1.0 / (1.0 + price / HALF_PRICE_MICRO),
        latency: if worker.first_token_ms == 0 {
            0.5
        } else {
            1.0 / (1.0 + latency / HALF_LATENCY_MS)
        },
    }
}

/// The score: the weighted mean of the terms, between 0 and 1.
#[must_use]
pub fn score(terms: &Terms, weights: &Weights) -> f32 {
    let each = [
        terms.model,
        terms.region,
        terms.gpu_class,
        terms.queue,
        terms.warm,
        terms.prefix,
        terms.trust,
        terms.price,
        terms.latency,
    ];
    let weights = weights.each();
    let total: f32 = weights.iter().sum();
    let sum: f32 = each.iter().zip(weights).map(|(term, w)| term * w).sum();
    if total > 0.0 { sum / total } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Region {
        Region::new("here").expect("valid")
    }

    fn base(region: &Region) -> Traits<'_> {
        Traits {
            region,
            digest: Digest([1; 32]),
            gpu_class: "cpu",
            load: 1.0,
            capacity: 4,
            warm: true,
            tier: Tier::Trusted,
            price_per_1k_micro: 100,
            first_token_ms: 100,
        }
    }

    fn of(worker: &Traits<'_>) -> f32 {
        let here = here();
        let wanted = Wanted {
            region: &here,
            digest: Some(Digest([1; 32])),
            gpu_class: Some("cpu"),
        };
        score(&terms(&wanted, worker), &Weights::default())
    }

    #[test]
    fn each_term_alone_moves_the_score_the_right_way() {
        let (here, away) = (here(), Region::new("away").expect("valid"));
        let best = of(&base(&here));
        assert!((0.0..=1.0).contains(&best));
        type Worsen<'a> = (&'a str, fn(&mut Traits<'a>));
        let worse: [Worsen<'_>; 7] = [
            ("model", |w| w.digest = Digest([2; 32])),
            ("gpu class", |w| w.gpu_class = "h100"),
            ("queue", |w| w.load = 5.0),
            ("warm", |w| w.warm = false),
            ("trust", |w| w.tier = Tier::Untrusted),
            ("price", |w| w.price_per_1k_micro = 9_000),
            ("latency", |w| w.first_token_ms = 900),
        ];
        for (name, change) in worse {
            let mut worker = base(&here);
            change(&mut worker);
            assert!(of(&worker) < best, "{name}");
        }
        assert!(of(&base(&away)) < best, "region");
    }

    #[test]
    fn the_more_of_a_prompt_was_sent_before_the_more_it_counts() {
        assert_eq!(prefix(0), 0.0);
        assert_eq!(prefix(4), 0.5);
        assert!(prefix(64) > prefix(8) && prefix(64) < 1.0);
        let here = here();
        let cold = terms(
            &Wanted {
                region: &here,
                digest: None,
                gpu_class: None,
            },
            &base(&here),
        );
        let warm = Terms {
            prefix: prefix(8),
            ..cold
        };
        let weights = Weights::default();
        assert!(score(&warm, &weights) > score(&cold, &weights));
    }

    #[test]
    fn a_weight_of_zero_leaves_its_term_out() {
        let (here, away) = (here(), Region::new("away").expect("valid"));
        let weights = Weights {
            region: 0.0,
            ..Weights::default()
        };
        let wanted = Wanted {
            region: &here,
            digest: None,
            gpu_class: None,
        };
        let near = score(&terms(&wanted, &base(&here)), &weights);
        let far = score(&terms(&wanted, &base(&away)), &weights);
        assert!((near - far).abs() < f32::EPSILON);
    }

    #[test]
    fn weights_that_say_nothing_are_refused() {
        let weights = Weights {
            price: f32::INFINITY,
            ..Weights::default()
        };
        assert!(weights.check().is_err());
        let zero = toml::from_str::<Weights>(
            "model=0\nregion=0\ngpu_class=0\nqueue=0\nwarm=0\nprefix=0\ntrust=0\nprice=0\nlatency=0",
        )
        .expect("read");
        assert!(zero.check().is_err());
    }
}
