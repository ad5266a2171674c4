//! The command line.

use crate::bench::BenchCommand;
use crate::commands::{
    artifact::ArtifactCommand, chat::ChatArgs, completions::CompletionsArgs,
    control::ControlCommand, dlq::DlqCommand, explain::ExplainArgs, fleet::FleetArgs,
    grant::GrantCommand, invite::InviteCommand, keys::KeysCommand, mesh::MeshCommand,
    policy::PolicyCommand, probe::ProbeArgs, receipt::ReceiptCommand, revoke::RevokeArgs,
    settings::ConfigCommand, store::StoreCommand, tenant::TenantCommand, topics::TopicsArgs,
};
use crate::exit;
use crate::logging::LoggingArgs;
use crate::roles::{
    bootstrap::BootstrapArgs, gateway::GatewayArgs, orchestrator::OrchestratorArgs,
    worker::WorkerArgs,
};
use crate::up::UpArgs;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  tether up                                  a whole mesh on this machine, with a small model
  tether up --workers 2 --model ./my-model   two workers, and a model of your own
  tether chat \"What is the capital of France?\"
  tether fleet --watch
  tether config check worker.toml";

/// A mesh of machines that serves language models through OpenAI's API.
#[derive(Debug, Parser)]
#[command(name = "tether", version, long_about = None, propagate_version = true, max_term_width = 100)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole mesh on this machine: bootstrap nodes, orchestrator, gateway and workers
    Up(Box<UpArgs>),
    /// Run DHT bootstrap nodes: where the other nodes of a mesh find each other
    Bootstrap(BootstrapArgs),
    /// Run a gateway: the tenants' HTTP edge
    Gateway(GatewayArgs),
    /// Run an orchestrator: keeps the fleet, places requests, owns jobs
    Orchestrator(OrchestratorArgs),
    /// Run a worker: serves models
    Worker(WorkerArgs),
    /// Make, show and replace node keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make a mesh: an operator's key and the mesh id
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Issue and show grants: who may do what in a mesh
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Invite workers, which then join without the operator at hand
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Take back a key, a grant or an invite, for good
    Revoke(Box<RevokeArgs>),
    /// Send what an operator signed on another machine
    #[command(subcommand)]
    Control(ControlCommand),
    /// Pack, sign and verify a model's files
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Check what a worker signed about its answer
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Give tenants API keys
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Check the rules about what tenants may ask for, and try them
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at requests that workers failed at, run them again or forget them
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Check, back up, bring back and migrate an orchestrator's store, or forget a tenant's key in it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check whether a bootstrap node or an HTTP endpoint answers
    Probe(ProbeArgs),
    /// Show the workers as the orchestrator sees them
    Fleet(FleetArgs),
    /// Show why a request went where it went
    Explain(ExplainArgs),
    /// Show what the orchestrator announces on the DHT and sees there
    Topics(TopicsArgs),
    /// Talk to a model through a gateway
    Chat(ChatArgs),
    /// Print a script that completes `tether` in a shell
    Completions(CompletionsArgs),
    /// Check configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The engine of one model; started by a worker, which speaks to it over its standard input
    #[command(hide = true)]
    Engine,
    /// Measure a mesh; see ops/bench/run
    #[command(subcommand, hide = true)]
    Bench(BenchCommand),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self.command {
            Command::Up(args) => args.run(&self.logging).map(done),
            Command::Bootstrap(args) => args.run(&self.logging).map(done),
            Command::Gateway(args) => args.run(&self.logging).map(done),
            Command::Orchestrator(args) => args.run(&self.logging).map(done),
            Command::Worker(args) => args.run(&self.logging),
            Command::Keys(command) => command.run().map(done),
            Command::Mesh(command) => command.run().map(done),
            Command::Grant(command) => command.run().map(done),
            Command::Invite(command) => command.run().map(done),
            Command::Revoke(args) => args.run().map(done),
            Command::Control(command) => command.run().map(done),
            Command::Artifact(command) => command.run().map(done),
            Command::Receipt(command) => command.run().map(done),
            Command::Tenant(command) => command.run().map(done),
            Command::Policy(command) => command.run(),
            Command::Dlq(command) => command.run().map(done),
            Command::Store(command) => command.run().map(done),
            Command::Probe(args) => args.run().map(done),
            Command::Fleet(args) => args.run().map(done),
            Command::Explain(args) => args.run().map(done),
            Command::Topics(args) => args.run().map(done),
            Command::Chat(args) => args.run().map(done),
            Command::Completions(args) => args.run().map(done),
            Command::Config(command) => command.run().map(done),
            Command::Bench(command) => command.run().map(done),
            Command::Engine => Ok(tether_worker::engine::child::run()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_is_shown_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    check(sub, &path);
                } else if sub.get_name() != "help" {
                    let help = sub.clone().render_long_help().to_string();
                    assert!(help.contains("Examples:\n"), "{path} shows no example");
                    assert!(help.contains(&format!("{} ", path.trim())), "{path}");
                }
            }
        }
        check(&Cli::command(), "tether");
    }
}
