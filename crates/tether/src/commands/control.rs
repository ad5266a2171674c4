//! `tether control`: what an operator signed elsewhere. [T-CTL-1]

use super::deliver::{self, DeliveryArgs, Message};
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
/// Most messages in them together.
const MAX_MESSAGES: usize = control_file::MAX_MESSAGES;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Send what `tether revoke --out` wrote, where the key that signed it is on no network
    ///
    /// The message carries its own signature, so that anybody may bring it: over an orchestrator's
    /// admin endpoint, or over links with the key of any operator (of a region, say). A file may hold
    /// several messages: they are told in the order in which they stand.
    #[command(after_long_help = format!("\
Examples:
  tether control send lost.control --admin http://127.0.0.1:9464 --admin-token-file admin.token
  tether control send lost.control --operator eu.key --operator-grant eu.grant \\
      --bootstrap 192.0.2.10:49737 --region eu

{}", deliver::HELP))]
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
                "say where to: --bootstrap and --region, or --config, with --operator, --admin, or --data-dir",
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
        let mut messages = Vec::new();
        for file in &args.files {
            messages.extend(control_file::read(file)?.iter().map(|it| message(file, it)));
            if messages.len() > MAX_MESSAGES {
                return Err(Usage("these files hold more than 16,384 messages").into());
            }
        }
        let issuer = args.signer.open(now_ms())?;
        let mesh = issuer.as_ref().map(|issuer| issuer.mesh().id);
        let delivery = args.delivery.open(mesh)?;
        let delivered = delivery.deliver(issuer.as_ref(), &messages);
        super::runtime()?.block_on(delivered)?.report()?;
        for message in &messages {
            stdout::line(&message.what)?;
        }
        Ok(())
    }
}

fn message(file: &Path, control: &Control) -> Message {
    let revocation = revocation(control);
    let says = match (control, &revocation) {
        (Control::Grant(_), _) => "a grant".to_owned(),
        (_, None) => "a revocation".to_owned(),
        (_, Some(order)) => describe(order),
    };
    Message {
        what: format!("{}: {says}", file.display()),
        bytes: codec::encode(control),
        target: revocation.map(|order| order.target),
    }
}

/// What a message takes back, whoever signed it: whoever takes it checks that.
fn revocation(control: &Control) -> Option<RevocationOrder> {
    let Control::Revocation(sealed) = control else {
        return None;
    };
    let body = sealed.get(HEADER_LEN..)?;
    let said = codec::decode::<Revocation>(Revocation::WHAT, body, Revocation::MAX_BYTES);
    let said = said.ok()?;
    Some(RevocationOrder {
        target: said.target,
        keeps_issued: said.keeps_issued,
        reason: said.reason,
    })
}
