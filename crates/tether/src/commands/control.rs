//! `tether control`: what an operator signed elsewhere. [T-CTL-1]

use super::deliver::{DeliveryArgs, Message};
use super::revoke::describe;
use super::signer::OptionalSignerArgs;
use crate::authority::issuer::RevocationOrder;
use crate::authority::{control_file, now_ms};
use crate::exit::Usage;
use crate::stdout;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tether_wire::control::{Control, Revocation};
use tether_wire::envelope::HEADER_LEN;
use tether_wire::{Signable, codec};

/// Most files of one command.
const MAX_FILES: usize = 256;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Send what `tether revoke --out` wrote, where the key that signed it is on no network
    ///
    /// The message carries its own signature, so that anybody may bring it: over an orchestrator's
    /// admin endpoint, or over links with the key of any operator (of a region, say).
    #[command(after_long_help = "\
Examples:
  tether control send lost.control --admin http://127.0.0.1:9464 --admin-token-file admin.token
  tether control send lost.control --operator eu.key --operator-grant eu.grant \\
      --bootstrap 192.0.2.10:49737 --region eu")]
    Send(Box<SendArgs>),
}

/// Arguments of `tether control send`.
#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    signer: OptionalSignerArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
}

impl ControlCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self::Send(args) = self;
        if !args.delivery.is_given() {
            return Err(Usage(
                "say where to: --bootstrap and --region with --operator, --admin, or --data-dir",
            )
            .into());
        }
        if args.delivery.uses_links() && !args.signer.is_given() {
            return Err(
                Usage("give --operator: orchestrators take links from operators alone").into(),
            );
        }
        if args.files.len() > MAX_FILES {
            return Err(Usage("give at most 256 files").into());
        }
        args.delivery.check()?;
        let messages = (args.files.iter())
            .map(|file| message(file))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let issuer = args.signer.open(now_ms())?;
        let delivered = args.delivery.deliver(issuer.as_ref(), &messages);
        super::runtime()?.block_on(delivered)?.report()?;
        for message in &messages {
            stdout::line(&message.what)?;
        }
        Ok(())
    }
}

fn message(file: &Path) -> anyhow::Result<Message> {
    let control = control_file::read(file)?;
    Ok(Message {
        what: format!("{}: {}", file.display(), says(&control)),
        bytes: codec::encode(&control),
    })
}

/// What a message says, whoever signed it: whoever takes it checks that.
fn says(control: &Control) -> String {
    match control {
        Control::Grant(_) => "a grant".to_owned(),
        Control::Revocation(sealed) => (sealed.get(HEADER_LEN..))
            .and_then(|body| {
                codec::decode::<Revocation>(Revocation::WHAT, body, Revocation::MAX_BYTES).ok()
            })
            .map_or("a revocation".to_owned(), |revocation| {
                describe(&RevocationOrder {
                    target: revocation.target,
                    keeps_issued: revocation.keeps_issued,
                    reason: revocation.reason,
                })
            }),
    }
}
