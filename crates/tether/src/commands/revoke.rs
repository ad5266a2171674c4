//! `tether revoke`: what is taken back, for good. (PRE-6) [T-CTL-2]

mod anew;
mod standing;

use super::deliver::{self, DeliveryArgs, Message};
use super::signer::SignerArgs;
use crate::authority::issuer::{Issuer, RevocationOrder};
use crate::authority::{AuthorityError, control_file, grant_file, now_ms};
use crate::exit::Usage;
use crate::{stderr, stdout};
use anew::{Anew, AnewArgs};
use clap::Args;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use tether_wire::control::{Control, MAX_REASON_BYTES, Target};
use tether_wire::{NodeId, codec};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
Examples:
  tether revoke KEY --operator my-mesh --bootstrap 192.0.2.10:49737 --region eu --reason \"stolen\"
  tether revoke --serial 4711 --operator my-mesh --config gateway.toml --orchestrator ID
  tether revoke KEY --operator my-mesh --admin http://127.0.0.1:9464 --admin-token-file admin.token
  tether revoke KEY --operator /media/stick/recovery.key --out lost.control   offline; then, online:
  tether control send lost.control --admin http://127.0.0.1:9464 --admin-token-file admin.token
  tether revoke MESH --operator /media/stick/recovery.key --register my-mesh --config gateway.toml

{}

{}", anew::HELP, deliver::HELP))]
pub(crate) struct RevokeArgs {
    /// Public id of the key that is taken back, and all that rests on it
    #[arg(value_name = "KEY", required_unless_present = "serial")]
    key: Option<NodeId>,
    /// Serial of a grant, or of an invite and all that came by it
    #[arg(long, value_name = "N", conflicts_with = "key")]
    serial: Option<u64>,
    /// Who gave the serial, where it is neither this operator nor in the register beside its key
    #[arg(long, value_name = "ID")]
    issuer: Option<NodeId>,
    #[command(flatten)]
    signer: SignerArgs,
    /// What the key issued or was replaced by goes on holding
    #[arg(long, conflicts_with = "serial")]
    keep_issued: bool,
    #[command(flatten)]
    anew: AnewArgs,
    /// Why, for people; at most 256 bytes
    #[arg(long, default_value = "", value_parser = parse_reason)]
    reason: String,
    #[command(flatten)]
    delivery: DeliveryArgs,
    /// Write it to a new file, to be sent later with `tether control send`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn parse_reason(text: &str) -> Result<String, String> {
    if text.len() > MAX_REASON_BYTES {
        return Err(format!("it is longer than {MAX_REASON_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

impl RevokeArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if !self.delivery.is_given() && self.out.is_none() {
            return Err(Usage(
                "say how the mesh hears of it: --bootstrap and --region, --config, --admin, --data-dir or --out",
            )
            .into());
        }
        if self.issuer.is_some() && self.serial.is_none() {
            return Err(Usage("--issuer is who gave a --serial").into());
        }
        self.delivery.check()?;
        let now = now_ms();
        let issuer = self.signer.open(now)?;
        let delivery = self.delivery.open(Some(issuer.mesh().id))?;
        let order = RevocationOrder {
            target: self.target(&issuer)?,
            keeps_issued: self.keep_issued,
            reason: self.reason.clone(),
        };
        let anew = self.anew.find(&order, &issuer)?;
        let what = describe(&order);
        // Those of before come first: they are known wherever the first key counts no more.
        let mut orders = anew.as_ref().map_or_else(Vec::new, Anew::orders);
        orders.push(order.clone());
        // Signed first, so that nobody is asked about what cannot be.
        let signed = (orders.iter())
            .map(|order| Ok((describe(order), issuer.revoke(order, now)?)))
            .collect::<Result<Vec<_>, AuthorityError>>()?;
        if let Some(out) = &self.out {
            grant_file::require_free(out)?;
        }
        self.confirm(&order, &issuer, anew.as_ref())?;
        if let Some(out) = &self.out {
            control_file::create(out, &signed)?;
            stderr::line(format_args!(
                "note: written to {}: it counts from when an orchestrator has it (`tether control send`)",
                out.display()
            ));
            issuer.note(&orders, now)?;
        }
        if self.delivery.is_given() {
            let message =
                |(order, (what, control)): (&RevocationOrder, &(String, Control))| Message {
                    bytes: codec::encode(control),
                    what: what.clone(),
                    target: Some(order.target),
                };
            let messages: Vec<_> = orders.iter().zip(&signed).map(message).collect();
            let delivered = delivery.deliver(Some(&issuer), &messages);
            let outcome = super::runtime()?.block_on(delivered)?;
            if outcome.is_taken() {
                issuer.note(&orders, now)?;
            } else if messages.len() > 1 {
                stderr::line("note: a part may have been taken: give the same command again");
            }
            outcome.report()?;
            stdout::line(what)?;
        }
        if let Some(anew) = anew {
            anew.report();
        }
        Ok(())
    }

    fn target(&self, issuer: &Issuer) -> anyhow::Result<Target> {
        Ok(match (self.key, self.serial) {
            (Some(key), _) => Target::Key(key),
            (None, Some(serial)) => Target::Serial {
                serial,
                issuer: match self.issuer {
                    Some(issuer) => issuer,
                    None => issuer
                        .issuer_of(serial)?
                        .unwrap_or_else(|| issuer.key().id()),
                },
            },
            (None, None) => return Err(Usage("give a KEY or --serial").into()),
        })
    }

    fn confirm(
        &self,
        order: &RevocationOrder,
        issuer: &Issuer,
        anew: Option<&Anew>,
    ) -> anyhow::Result<()> {
        let what = describe(order);
        let end = if issuer.is_recovery() {
            "nothing takes it back"
        } else {
            "nothing takes it back, but that the mesh's recovery key revokes the first key, and all that rests on that one falls"
        };
        stderr::line(format_args!("warning: {what}. This is final: {end}."));
        let is_first = order.target == Target::Key(issuer.mesh().id.operator());
        if is_first && !order.keeps_issued {
            stderr::line(
                "warning: this is the key of the mesh's operator: every grant that it signed falls, and each of its revocations that is not signed anew, unless --keep-issued is given.",
            );
        }
        if let Some(anew) = anew {
            anew.warn();
        }
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Usage("nobody can be asked whether this is meant: give --yes").into());
        }
        stderr::write("Type `yes` to go on: ");
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            anyhow::bail!("nothing was revoked");
        }
        Ok(())
    }
}

/// What a revocation says, for people.
pub(crate) fn describe(order: &RevocationOrder) -> String {
    let mut text = match order.target {
        Target::Key(key) => format!("key {key} is revoked"),
        Target::Serial { issuer, serial } => {
            format!("serial {serial} of {issuer} is revoked")
        }
    };
    text += match (order.target, order.keeps_issued) {
        (Target::Key(_), true) => ", and what it issued or was replaced by goes on",
        (Target::Key(_), false) => ", and all that rests on it",
        (Target::Serial { .. }, _) => "",
    };
    text
}
