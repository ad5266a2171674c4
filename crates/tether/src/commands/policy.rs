//! `tether policy`: is it right, and what would it decide?

use crate::exit::POLICY_REFUSES;
use crate::stdout;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tether_orchestrator::policy::{Facts, Policy, PolicyError, PolicyFile, dry_run, schema};
use tether_wire::{Region, TenantId};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy: the rules by which an orchestrator refuses, limits and degrades requests
    ///
    /// Exit code 3 if it is invalid, with line and column of the first mistake on stderr.
    #[command(after_long_help = "Examples:\n  tether policy check policy.json")]
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show what a policy would decide about a request, and by which rule
    ///
    /// Exit code 0 if the request would run, 6 if it would be refused, 3 if the policy is invalid.
    /// Whether the model is there at all is not looked at.
    #[command(after_long_help = "\
Examples:
  tether policy test policy.json --tenant acme --model big
  tether policy test policy.json --tenant acme --model big@1.0 --region eu --max-tokens 9000 --json")]
    Test(Box<TestArgs>),
    /// Print the JSON Schema of policies, for editors
    #[command(after_long_help = "Examples:\n  tether policy schema > policy.schema.json")]
    Schema,
}

/// Arguments of `tether policy test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The file
    file: PathBuf,
    /// Whose request it is
    #[arg(long, value_name = "ID")]
    tenant: TenantId,
    /// The model, as a tenant asks for it
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The region of the orchestrator that takes it
    #[arg(long, value_name = "REGION", default_value = "local")]
    region: Region,
    /// The most tokens that it asks for [default: it sets no limit]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Bytes of its messages, tools and schema together
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_bytes: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl PolicyCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check { file } => {
                read(file)?;
                stdout::line("the policy is valid")?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Test(args) => args.run(),
            Self::Schema => {
                stdout::write(schema::published())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl TestArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let policy = read(self.file)?;
        let decided = dry_run(
            &policy,
            &Facts {
                tenant: &self.tenant,
                region: &self.region,
                model: &self.model,
                max_tokens: self.max_tokens,
                prompt_bytes: self.prompt_bytes,
            },
        );
        if self.json {
            stdout::line(serde_json::to_string_pretty(&decided)?)?;
        } else {
            stdout::write(decided.to_string())?;
        }
        Ok(if decided.allowed {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(POLICY_REFUSES)
        })
    }
}

/// As an orchestrator reads it.
fn read(file: PathBuf) -> Result<Policy, PolicyError> {
    // What was not read yet is always read.
    Ok(PolicyFile::new(file).poll()?.unwrap_or_default())
}
