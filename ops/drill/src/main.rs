//! `tether-drill NAME`: a promise about time, kept or broken by real processes.
//!
//! Each drill starts a mesh of `tether` processes of its own, does something bad to it, and prints
//! a table and, as the last line, JSON. It exits with 1 and names the promise when one did not hold.
//!
//! # Layout
//!
//! * `kill`, `starve`, `flood`, `replay`, `crowd`, `engine`, `soak`,
//!   `survive`, `keys`, `overload` – the drills
//! * `mesh` – keys, grants, configuration files, and the processes that run with them
//! * `views` – what orchestrators say of their fleets, and when; whether two say the same
//! * `load` – honest requests and how they end
//! * `hostile` – nodes of this process: strangers, members that lie, recordings
//! * `journal` – what an orchestrator logged of doubts and attempts
//! * `cost` – memory and processor time of a process, from /proc
//! * `memory` – whether that of a process is flat
//! * `figures`, `report` – distributions, promises, tables
#![forbid(unsafe_code)]

mod cost;
mod crowd;
mod engine;
mod events;
mod figures;
mod flood;
mod guard;
mod hostile;
mod journal;
mod keys;
mod kill;
mod load;
mod memory;
mod mesh;
mod overload;
mod replay;
mod report;
mod soak;
mod starve;
mod survive;
mod views;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after an interrupt.
const INTERRUPTED: u8 = 130;

/// Drills: wall-clock promises of a mesh, shown with real processes.
///
/// Needs a release build of `tether`; `ops/drill/run NAME` makes one. Prints a table in Markdown
/// and, as the last line, JSON. Exits with 1 when a promise did not hold, and names it.
#[derive(Debug, Parser)]
#[command(
    name = "tether-drill",
    version,
    max_term_width = 100,
    args_override_self = true
)]
struct Cli {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    drill: Drill,
}

/// Where things are.
#[derive(Debug, Args)]
struct SiteArgs {
    /// The `tether` binary; the one beside this program without it
    #[arg(long, global = true, value_name = "FILE")]
    tether: Option<PathBuf>,
    /// Keep the folder of the mesh, with the logs of its processes, here
    #[arg(long, global = true, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Drill {
    /// Workers are killed under load: how soon each view doubts them, and when they are gone
    ///
    /// By `kill -9` one after the other; by SIGTERM, which says goodbye; and by silence alone, where
    /// the process is stopped or killed and nobody restarts it.
    Kill(kill::KillArgs),
    /// Healthy workers are starved of CPU: they keep their streams and are chosen again
    ///
    /// Worker and engine are stopped by SIGSTOP for a while and continued; a long answer is under
    /// way on each.
    Starve(starve::StarveArgs),
    /// A stranger and a member flood an orchestrator with forged heartbeats
    ///
    /// In turns: nobody; a stranger who dials over and over; a member that pushes forged, stolen,
    /// repeated and random bytes and calls `spread` without being an orchestrator.
    Flood(flood::FloodArgs),
    /// Recorded heartbeats are replayed, shuffled, after their workers left: none is revived
    ///
    /// At a live orchestrator and at one just restarted; as a peer's batches, and as a member's
    /// pushes. The recording has real keys and signatures.
    Replay(replay::ReplayArgs),
    /// Many real workers, killed and restarted all the time: three views are equal at the end
    Crowd(crowd::CrowdArgs),
    /// Engines of a worker are killed, abort and stand still under load: its other models go on
    ///
    /// With the real engine; each in the middle of a long answer.
    Engine(engine::EngineArgs),
    /// Thousands of mixed requests against one worker: no restart, flat memory, every answer whole
    /// or explicitly failed
    ///
    /// With the real engine: streams, callers that hang up, schemas, tools, log probabilities, stop
    /// strings, several answers; overlong, malformed and wrong requests.
    Soak(soak::SoakArgs),
    /// Workers, or orchestrators, are killed under load: every answer is what it would have been
    ///
    /// With the real engine; each request is asked of an undisturbed mesh first.
    Survive(survive::SurviveArgs),
    /// One `Idempotency-Key`, many times at once, while its orchestrator is killed, and again after:
    /// one run, one bill, equal answers
    ///
    /// With the real engine; with three orchestrators on one PostgreSQL, and with one that has a file
    /// of its own and is restarted.
    Keys(keys::KeysArgs),
    /// Three times what the fleet can do, by two tenants with a deadline each: what comes out of it, for
    /// whom, and what those are told that are refused
    ///
    /// With the echo engine, which takes a fixed time for each word.
    Overload(overload::OverloadArgs),
    /// Becomes another program that dies with the one that started this
    #[command(hide = true)]
    Guard(guard::GuardArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let drill = match cli.drill {
        // Before any runtime: it only becomes another program.
        Drill::Guard(guard) => {
            eprintln!("tether-drill: {:#}", guard.run());
            return ExitCode::FAILURE;
        }
        drill => drill,
    };
    match run(cli.site, drill) {
        Ok(Some(report)) => report.print(),
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("tether-drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a drill on this thread, which starts all processes: they die with it.
fn run(site: SiteArgs, drill: Drill) -> anyhow::Result<Option<Report>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let drilled = async {
            match drill {
                Drill::Kill(args) => Box::pin(args.run(&site)).await,
                Drill::Starve(args) => Box::pin(args.run(&site)).await,
                Drill::Flood(args) => Box::pin(args.run(&site)).await,
                Drill::Replay(args) => Box::pin(args.run(&site)).await,
                Drill::Crowd(args) => Box::pin(args.run(&site)).await,
                Drill::Engine(args) => Box::pin(args.run(&site)).await,
                Drill::Soak(args) => Box::pin(args.run(&site)).await,
                Drill::Survive(args) => Box::pin(args.run(&site)).await,
                Drill::Keys(args) => Box::pin(args.run(&site)).await,
                Drill::Overload(args) => Box::pin(args.run(&site)).await,
                Drill::Guard(_) => unreachable!("was run"),
            }
        };
        tokio::select! {
            report = drilled => report.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    })
}
