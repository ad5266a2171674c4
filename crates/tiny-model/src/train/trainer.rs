//! The training loop: AdamW, a warm-up and a cosine, gradients clipped, every draw from one seed.

use candle_core::backprop::GradStore;
use candle_core::{Result, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use super::lesson::{Batch, Kind};
use super::model::Llama;
use crate::shape::Shape;

const LEARNING_RATE: f64 = 3e-3;
const FINAL_RATE_SHARE: f64 = 0.02;
const WARM_UP_STEPS: usize = 40;
const LARGEST_GRADIENT: f64 = 1.0;
/// Batches whose gradients are taken side by side and summed, one thread each.
const LANES: usize = 2;

/// How a step went.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// What it taught.
    pub kind: Kind,
    /// Mean loss of its batches.
    pub loss: f32,
}

/// Trains a model of `shape` from `seed` for `steps` steps, and calls `report` after each.
///
/// # Errors
/// When candle or the tokenizer fails.
pub fn train(
    shape: &Shape,
    tokenizer: &Tokenizer,
    seed: u64,
    steps: usize,
    mut report: impl FnMut(Progress),
) -> anyhow::Result<Llama> {
    let model = Llama::random(shape, seed)?;
    let variables = model.variables();
    let settings = ParamsAdamW {
        lr: LEARNING_RATE,
        beta2: 0.98,
        weight_decay: 0.02,
        ..Default::default()
    };
    let mut optimizer = AdamW::new(variables.clone(), settings)?;
    let mut chance = ChaCha8Rng::seed_from_u64(seed.wrapping_add(1));
    for step in 0..steps {
        let kind = Kind::of_step(step);
        let batches: anyhow::Result<Vec<Batch>> = (0..LANES)
            .map(|_| Batch::draw(kind, &mut chance, tokenizer))
            .collect();
        let (loss, mut gradients) = gradients(&model, &variables, &batches?)?;
        clip(&variables, &mut gradients)?;
        optimizer.set_learning_rate(rate(step, steps));
        optimizer.step(&gradients)?;
        report(Progress {
            step: step + 1,
            kind,
            loss,
        });
    }
    Ok(model)
}

/// Mean loss and mean gradients over the batches.
fn gradients(
    model: &Llama,
    variables: &[Var],
    batches: &[Batch],
) -> anyhow::Result<(f32, GradStore)> {
    let lanes: Result<Vec<(f32, GradStore)>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = batches
            .iter()
            .map(|batch| {
                scope.spawn(move || -> Result<(f32, GradStore)> {
                    let loss = (model.loss(batch)? / batches.len() as f64)?;
                    Ok((loss.to_scalar()?, loss.backward()?))
                })
            })
            .collect();
        let joined = lanes
            .into_iter()
            .map(|lane| lane.join().expect("a lane does not panic"));
        joined.collect()
    });
    let mut lanes = lanes?.into_iter();
    let (mut loss, mut sum) = lanes.next().ok_or_else(|| anyhow::anyhow!("no batch"))?;
    for (more_loss, more) in lanes {
        loss += more_loss;
        for variable in variables {
            if let (Some(one), Some(other)) = (sum.get(variable), more.get(variable)) {
                let added = (one + other)?;
                sum.insert(variable, added);
            }
        }
    }
    Ok((loss, sum))
}

fn clip(variables: &[Var], gradients: &mut GradStore) -> Result<()> {
    let mut squares = 0.0;
    for gradient in variables
        .iter()
        .filter_map(|variable| gradients.get(variable))
    {
        squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    let norm = squares.sqrt();
    if norm > LARGEST_GRADIENT {
        for variable in variables {
            if let Some(gradient) = gradients.get(variable) {
                let clipped = (gradient * (LARGEST_GRADIENT / norm))?;
                gradients.insert(variable, clipped);
            }
        }
    }
    Ok(())
}

fn rate(step: usize, steps: usize) -> f64 {
    if step < WARM_UP_STEPS {
        return LEARNING_RATE * (step + 1) as f64 / WARM_UP_STEPS as f64;
    }
    let done = (step - WARM_UP_STEPS) as f64 / (steps - WARM_UP_STEPS).max(1) as f64;
    let cosine = f64::midpoint(1.0, (std::f64::consts::PI * done).cos());
    LEARNING_RATE * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_a_small_share() {
        assert!(rate(0, 1000) < rate(WARM_UP_STEPS, 1000));
        assert!(rate(999, 1000) < LEARNING_RATE * 0.03);
    }
}
