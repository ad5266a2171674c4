//! Answers of several kinds of workers: how often one is given up wrongly, and how long a stall
//! goes unnoticed. The table in the module's documentation is printed by this test.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const STALL_MS: u64 = 30_000;
const ANSWERS: usize = 200;
const PIECES: usize = 500;
const SEEDS: u64 = 10;

/// The next gap, in milliseconds, of an answer's `n`th piece.
type Gap = fn(usize, &mut StdRng) -> f64;

fn regular(_: usize, rng: &mut StdRng) -> f64 {
    rng.random_range(18.0..22.0)
}

fn slow(_: usize, rng: &mut StdRng) -> f64 {
    rng.random_range(180.0..220.0)
}

/// Eight at once, every 400 ms.
fn batches(n: usize, rng: &mut StdRng) -> f64 {
    if n.is_multiple_of(8) {
        rng.random_range(380.0..420.0)
    } else {
        1.0
    }
}

/// As where an engine reads others' prompts between the tokens: a pause now and then.
fn pauses(_: usize, rng: &mut StdRng) -> f64 {
    if rng.random_bool(0.01) {
        rng.random_range(100.0..1_000.0)
    } else {
        regular(0, rng)
    }
}

/// Log-normal, median 20 ms: one gap in a thousand is longer than 440 ms.
fn log_normal(_: usize, rng: &mut StdRng) -> f64 {
    // Box and Muller, 1958.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    20.0 * (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()).exp()
}

/// Pareto, from 10 ms on, with an exponent of 1.5: no finite variance.
fn pareto(_: usize, rng: &mut StdRng) -> f64 {
    10.0 * (1.0 - rng.random::<f64>()).powf(-1.0 / 1.5)
}

/// What became of all answers of a kind.
struct Found {
    /// False alarms for each 10,000 pieces.
    alarms: f64,
    /// Share of answers with at least one.
    alarmed: f64,
    /// Time in which a stall is found: median, and 99th percentile.
    median_ms: u64,
    p99_ms: u64,
}

fn simulate(gap: Gap, seed: u64) -> Found {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut alarms, mut alarmed, mut delays) = (0_u32, 0_u32, Vec::new());
    let mut learnt = None;
    for _ in 0..ANSWERS {
        let mut pace = Pace::new(STALL_MS, learnt);
        let (mut now, mut own) = (1_000.0, 0);
        pace.piece(1_000);
        for n in 0..PIECES {
            // A gap beyond the stall timeout is given up whatever was learnt.
            now += gap(n, &mut rng).min(STALL_MS as f64);
            own += u32::from(pace.piece(now.round() as u64));
            // It might stall here.
            delays.push(pace.patience_ms());
        }
        alarms += own;
        alarmed += u32::from(own > 0);
        learnt = Some(pace.learnt());
    }
    delays.sort_unstable();
    let pieces = (ANSWERS * PIECES) as f64;
    Found {
        alarms: f64::from(alarms) * 10_000.0 / pieces,
        alarmed: f64::from(alarmed) / ANSWERS as f64,
        median_ms: delays[delays.len() / 2],
        p99_ms: delays[delays.len() * 99 / 100],
    }
}

#[test]
fn stalls_are_found_soon_and_answers_are_seldom_given_up_wrongly() {
    // Kind, gaps, most false alarms for 10,000 pieces, most median delay.
    let kinds: [(&str, Gap, f64, u64); 6] = [
        ("regular: 20 ms ± 10 %", regular, 0.0, 300),
        ("slow: 200 ms ± 10 %", slow, 0.0, 900),
        ("batches of 8 every 400 ms", batches, 0.0, 2_000),
        ("20 ms, a pause of up to 1 s in 1 %", pauses, 0.3, 2_600),
        ("log-normal, median 20 ms, σ = 1", log_normal, 0.8, 2_000),
        ("Pareto from 10 ms, exponent 1.5", pareto, 4.0, 20_000),
    ];
    let mut broken = Vec::new();
    for (kind, gap, most_alarms, most_ms) in kinds {
        let all: Vec<Found> = (0..SEEDS).map(|seed| simulate(gap, seed)).collect();
        let mean = |of: fn(&Found) -> f64| all.iter().map(of).sum::<f64>() / SEEDS as f64;
        let worst = |of: fn(&Found) -> u64| all.iter().map(of).max().unwrap_or(0);
        println!(
            "//! | {kind} | {:.2} | {:.1} % | {} ms | {} ms |",
            mean(|it| it.alarms),
            mean(|it| it.alarmed) * 100.0,
            worst(|it| it.median_ms),
            worst(|it| it.p99_ms),
        );
        for (seed, found) in all.iter().enumerate() {
            let (alarms, median_ms) = (found.alarms, found.median_ms);
            if alarms > most_alarms || median_ms > most_ms {
                broken.push(format!("{kind}, seed {seed}: {alarms}, {median_ms} ms"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
