//! `tether-sim run SCENARIO.toml`: runs a scenario over seeds, and a seed that failed again.
//! `tether-sim table SCENARIO.toml…`: runs several, for the tables of `docs/benchmarks.md`.
#![forbid(unsafe_code)]

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tether_sim::report::{self, Summary};
use tether_sim::tether::Tether;
use tether_sim::{Outcome, Scenario, replay, run_all};

/// Simulates presence: thousands of nodes, hours in seconds.
#[derive(Parser)]
#[command(name = "tether-sim", args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario; exits with 1 when something did not hold that it expects.
    Run(Run),
    /// Runs scenarios over seeds from 0 on; prints a table in Markdown and, as the last line, JSON.
    /// Exits with 1 as `run` does.
    Table(Table),
}

#[derive(Args)]
struct Scale {
    /// Another number of nodes than the file says.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Seeds that run at the same time; all cores without it.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Args)]
struct Table {
    /// The scenarios' files.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,
    /// Seeds of each.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    #[command(flatten)]
    scale: Scale,
}

#[derive(Args)]
struct Run {
    /// The scenario's file.
    scenario: PathBuf,
    /// Seeds, from A up to but without B.
    #[arg(long, value_name = "A..B", default_value = "0..10", value_parser = seeds)]
    seeds: Range<u64>,
    /// Runs this seed alone and shows what led to what went wrong first.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    replay: Option<u64>,
    /// Prints JSON on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    scale: Scale,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parse = |number: &str| {
        number
            .parse::<u64>()
            .map_err(|_| format!("`{number}` is not a seed"))
    };
    let (from, until) = text
        .split_once("..")
        .ok_or("expected A..B, such as 0..200")?;
    let (from, until) = (parse(from)?, parse(until)?);
    if from >= until {
        return Err(format!("{from}..{until} is empty"));
    }
    Ok(from..until)
}

fn main() -> anyhow::Result<ExitCode> {
    let held = match Cli::parse().command {
        Command::Run(run) => {
            let scenario = load(&run.scenario, &run.scale)?;
            match run.replay {
                Some(seed) => again(&run, &scenario, seed)?,
                None => all(&run, &scenario)?,
            }
        }
        Command::Table(table) => several(&table)?,
    };
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(path: &Path, scale: &Scale) -> anyhow::Result<Scenario> {
    let scenario =
        Scenario::load(path).with_context(|| format!("{} cannot be run", path.display()))?;
    Ok(match scale.nodes {
        Some(nodes) => scenario.with_nodes(nodes)?,
        None => scenario,
    })
}

fn simulate(
    path: &Path,
    scenario: &Scenario,
    seeds: Range<u64>,
    scale: &Scale,
) -> anyhow::Result<Vec<Outcome>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = scale.threads.unwrap_or(cores);
    if threads == 0 {
        bail!("--threads must be at least 1");
    }
    let outcomes = run_all::<Tether>(scenario, seeds, threads, |outcome| {
        eprintln!("{}", report::line(outcome));
    });
    for outcome in outcomes.iter().filter(|it| !it.holds()) {
        tell_failure(path, scenario, outcome);
    }
    Ok(outcomes)
}

fn all(run: &Run, scenario: &Scenario) -> anyhow::Result<bool> {
    let outcomes = simulate(&run.scenario, scenario, run.seeds.clone(), &run.scale)?;
    let summary = Summary::of(&scenario.name, &outcomes);
    if run.json {
        let all = serde_json::json!({ "summary": summary, "runs": outcomes });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", summary.table());
    }
    Ok(summary.held == summary.seeds)
}

fn several(table: &Table) -> anyhow::Result<bool> {
    let mut summaries = Vec::new();
    for path in &table.scenarios {
        let scenario = load(path, &table.scale)?;
        let outcomes = simulate(path, &scenario, 0..table.runs, &table.scale)?;
        summaries.push(Summary::of(&scenario.name, &outcomes));
    }
    print!("{}", report::markdown(&summaries));
    println!("{}", serde_json::to_string(&summaries)?);
    Ok(summaries.iter().all(|it| it.held == it.seeds))
}

fn again(run: &Run, scenario: &Scenario, seed: u64) -> anyhow::Result<bool> {
    let replay = replay::<Tether>(scenario, seed);
    eprintln!("{}", report::line(&replay.outcome));
    if run.json {
        println!("{}", serde_json::to_string_pretty(&replay.outcome)?);
    } else {
        for line in &replay.lines {
            println!("{line}");
        }
        print!(
            "{}",
            Summary::of(&scenario.name, std::slice::from_ref(&replay.outcome)).table()
        );
    }
    for failure in &replay.outcome.failures {
        eprintln!("did not hold: {failure}");
    }
    if let Some(violation) = &replay.violation {
        eprintln!(
            "first at {} ms, viewer {:?}, about {:?}: {}",
            violation.at_ms, violation.viewer, violation.subject, violation.what
        );
    }
    Ok(replay.outcome.holds())
}

fn tell_failure(path: &Path, scenario: &Scenario, outcome: &Outcome) {
    eprintln!("seed {} of {} failed:", outcome.seed, scenario.name);
    for failure in &outcome.failures {
        eprintln!("  {failure}");
    }
    eprintln!(
        "  again: cargo run --release -p tether-sim -- run {} --nodes {} --replay {}",
        path.display(),
        scenario.nodes,
        outcome.seed
    );
}
