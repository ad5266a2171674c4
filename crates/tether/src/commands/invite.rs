//! `tether invite`: how providers join without the operator at hand. (PRE-6) [T-INV-1]

use super::grant::{parse_tier, tier_text};
use super::lifetime::{left_text, parse_grant_ms, parse_invite_ms};
use super::listed::{Listed, print_json};
use super::signer::SignerArgs;
use crate::authority::issuer::InviteOrder;
use crate::authority::{now_ms, register};
use crate::exit::Usage;
use crate::{stderr, stdout};
use clap::Subcommand;
use rand::RngCore;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_wire::grant::{Access, Tier};
use tether_wire::invite::{MAX_TOKEN_BOOTSTRAP, MAX_TOKEN_BYTES, MAX_USES, Token};
use tether_wire::{NodeId, Region};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invite; prints its token, a secret, once
    ///
    /// Whoever has the token can join the mesh with a worker of this region, until the invite is
    /// over or its uses are spent: `tether worker --join-file FILE`. The invite is entered in the
    /// register beside the operator's key, without the secret. To take it back, and with it all
    /// workers that came by it: `tether revoke --serial N`.
    #[command(after_long_help = "\
Examples:
  tether invite new --operator my-mesh --region eu --ttl 24h --uses 5 \\
      --bootstrap 192.0.2.10:49737 --bootstrap 192.0.2.11:49737 > token
  tether invite new --operator eu.key --operator-grant eu.grant --region eu --recovery ID \\
      --bootstrap 192.0.2.10:49737 --json")]
    New(Box<NewArgs>),
    /// List the invites that were made from a mesh folder
    #[command(
        after_long_help = "Examples:\n  tether invite ls my-mesh\n  tether invite ls my-mesh --json"
    )]
    Ls {
        /// The mesh folder
        dir: PathBuf,
        /// A JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `tether invite new`.
#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    #[command(flatten)]
    signer: SignerArgs,
    /// Where the workers stand
    #[arg(long)]
    region: Region,
    /// How long the invite can be used: a number with s, m, h or d; 90 days at most
    #[arg(long, default_value = "24h", value_parser = parse_invite_ms)]
    ttl: u64,
    /// How many workers it lets in; one that joins again with the same key counts once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USES)))]
    uses: u32,
    /// How far the workers' results are believed: trusted or untrusted
    #[arg(long, default_value = "untrusted", value_parser = parse_tier)]
    tier: Tier,
    /// How long the grant of each worker holds, from when it joins; two years at most
    #[arg(long, default_value = "90d", value_parser = parse_grant_ms)]
    grant_life: u64,
    /// Address of a DHT bootstrap node of the mesh, which goes into the token; may be given several times
    #[arg(long, required = true, value_name = "ADDR")]
    bootstrap: Vec<SocketAddr>,
    /// `access` of the mesh, which goes into the token
    #[arg(long, default_value = "invite", value_parser = ["invite", "open"])]
    access: String,
    /// Public id of the mesh's recovery key, where no mesh.id beside the operator's key names it
    #[arg(long, value_name = "ID")]
    recovery: Option<NodeId>,
    /// A JSON object with serial, times and token instead of the token alone
    #[arg(long)]
    json: bool,
}

impl InviteCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(args) => new(&args),
            Self::Ls { dir, json } => list(&dir, json),
        }
    }
}

fn new(args: &NewArgs) -> anyhow::Result<()> {
    if args.bootstrap.len() > MAX_TOKEN_BOOTSTRAP {
        return Err(
            Usage("give at most 16 --bootstrap addresses: a few are enough to join").into(),
        );
    }
    if (args.bootstrap.iter()).any(|addr| addr.is_ipv6() || addr.port() == 0) {
        return Err(Usage("--bootstrap takes IPv4 addresses with a port: IP:PORT").into());
    }
    let now = now_ms();
    let mut issuer = args.signer.open(now)?;
    if let Some(recovery) = args.recovery {
        let known = issuer.mesh().recovery.unwrap_or(recovery);
        if known != recovery {
            return Err(Usage("--recovery is not the one that mesh.id names").into());
        }
        issuer.set_recovery(recovery);
    }
    let mesh = issuer.mesh();
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let order = InviteOrder {
        region: args.region.clone(),
        tier: args.tier,
        uses: args.uses,
        life_ms: args.ttl,
        grant_life_ms: args.grant_life,
    };
    let invite = issuer.invite(&order, &secret, now)?;
    let token = Token {
        mesh: mesh.id,
        recovery: mesh.recovery,
        access: match args.access.as_str() {
            "open" => Access::Open,
            _ => Access::Invite,
        },
        bootstrap: args.bootstrap.clone(),
        invite: invite.bytes().to_vec(),
        secret,
    }
    .to_text();
    if token.len() > MAX_TOKEN_BYTES {
        anyhow::bail!(
            "the token has {} characters, and {MAX_TOKEN_BYTES} are the most: give fewer --bootstrap addresses",
            token.len()
        );
    }
    stderr::line(format_args!(
        "note: the token is a secret: whoever has it can join as a worker of {}, {} in all, for {}.\n\
         note: to take it back, and all who came by it: tether revoke --serial {}",
        invite.region,
        args.uses,
        left_text(invite.expires_ms, now),
        invite.serial,
    ));
    if args.json {
        let made = json!({
            "serial": invite.serial,
            "mesh": mesh.id,
            "region": invite.region,
            "tier": invite.tier,
            "uses": invite.uses,
            "expires_ms": invite.expires_ms,
            "grant_life_ms": invite.grant_life_ms,
            "token": token,
        });
        return Ok(stdout::line(made)?);
    }
    Ok(stdout::line(token)?)
}

fn list(dir: &Path, json: bool) -> anyhow::Result<()> {
    let register = register::read(dir)?;
    let rows: Vec<_> = (register.invites.iter())
        .map(|entry| Listed {
            entry,
            revoked: register.is_invite_revoked(entry),
        })
        .collect();
    if json {
        return print_json(&rows);
    }
    let now = now_ms();
    let mut table = format!(
        "{:>16}  {:<16}  {:<9}  {:>6}  {:<10}  GRANTS HOLD\n",
        "SERIAL", "REGION", "TIER", "USES", "LEFT"
    );
    for row in &rows {
        let (entry, left) = (row.entry, row.left(row.entry.expires_ms, now));
        table += &format!(
            "{:>16}  {:<16}  {:<9}  {:>6}  {left:<10}  {}\n",
            entry.serial,
            entry.region.as_str(),
            tier_text(entry.tier),
            entry.uses,
            super::lifetime::duration_text(entry.grant_life_ms),
        );
    }
    Ok(stdout::write(table)?)
}
