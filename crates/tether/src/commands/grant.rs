//! `tether grant`: who may do what in a mesh. (NET-8)

use super::lifetime::{duration_text, parse_grant_ms};
use super::listed::{Listed, print_json};
use super::revoke::describe;
use super::signer::SignerArgs;
use crate::authority::issuer::{Order, RevocationOrder};
use crate::authority::{grant_file, now_ms, register};
use crate::stdout;
use anyhow::bail;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tether_wire::grant::{Access, Mesh, Role, Tier};
use tether_wire::{Membership, MeshId, NodeId, Region};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Give a key a role; prints the grant's serial
    ///
    /// The grant is entered in the register beside the operator's key (grants.jsonl). A copy of the
    /// key elsewhere has a register of its own; serials are drawn at random, so that no two grants
    /// have the same.
    ///
    /// A grant ends with its time (--ttl), or when it is taken back: `tether revoke --serial N`, or
    /// `tether revoke KEY` for all that a key has. Workers can also be let in by an invite, without
    /// the operator at hand: `tether invite new`.
    #[command(after_long_help = "\
Examples:
  tether grant issue --operator my-mesh/operator.key --subject $(tether keys show w1.key) \\
      --role worker --region eu --tier trusted --ttl 30d --out w1.grant")]
    Issue(IssueArgs),
    /// Show what a grant says, and whether it holds
    #[command(after_long_help = "Examples:\n  tether grant show w1.grant")]
    Show {
        /// The grant's file
        file: PathBuf,
        /// The mesh in which it should hold; if not given, it is told from the grant
        #[arg(long, value_name = "ID")]
        mesh: Option<MeshId>,
        /// The mesh's recovery key, where that one signed
        #[arg(long, value_name = "ID", requires = "mesh")]
        recovery: Option<NodeId>,
    },
    /// List the grants that were issued from a mesh folder, also those that were revoked
    #[command(
        after_long_help = "Examples:\n  tether grant ls my-mesh\n  tether grant ls my-mesh --json"
    )]
    Ls {
        /// The mesh folder
        dir: PathBuf,
        /// A JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `tether grant issue`.
#[derive(Debug, clap::Args)]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    signer: SignerArgs,
    /// Public id of the node that gets the role
    #[arg(long, value_name = "ID")]
    subject: NodeId,
    /// The role: gateway, orchestrator, worker, publisher or operator
    #[arg(long)]
    role: Role,
    /// Where the role holds; everywhere if not given
    #[arg(long)]
    region: Option<Region>,
    /// How far a worker's results are believed: trusted or untrusted
    #[arg(long, default_value = "untrusted", value_parser = parse_tier)]
    tier: Tier,
    /// For how long: a number with s, m, h or d; two years at most
    #[arg(long, default_value = "90d", value_parser = parse_grant_ms)]
    ttl: u64,
    /// Where to write the grant; a file that is there is not overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl GrantCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Issue(args) => issue(args),
            Self::Show {
                file,
                mesh,
                recovery,
            } => show(&file, mesh, recovery),
            Self::Ls { dir, json } => list(&dir, json),
        }
    }
}

fn issue(args: IssueArgs) -> anyhow::Result<()> {
    let now = now_ms();
    // Before one is entered that nobody gets.
    grant_file::require_free(&args.out)?;
    let issuer = args.signer.open(now)?;
    let order = Order {
        subject: args.subject,
        role: args.role,
        region: args.region,
        tier: args.tier,
        life_ms: args.ttl,
    };
    let (sealed, grant) = issuer.issue(&order, now)?;
    grant_file::create(&args.out, &sealed, &grant)?;
    Ok(stdout::line(grant.serial)?)
}

fn show(file: &Path, mesh: Option<MeshId>, recovery: Option<NodeId>) -> anyhow::Result<()> {
    let sealed = grant_file::read(file)?;
    let found = match mesh {
        None => grant_file::inspect(&sealed),
        Some(id) => sealed.verify(&id).ok().map(|grant| (id, grant)),
    };
    let Some((id, grant)) = found else {
        bail!(
            "{}: the signature of the grant is wrong in {}: ask the operator for a new one",
            file.display(),
            mesh.map_or(
                "any mesh that it names (one that rests on a recovery key needs --mesh and --recovery)"
                    .to_owned(),
                |id| format!("mesh {id}")
            )
        );
    };
    let now = now_ms();
    let members = Membership::new(Mesh {
        id,
        recovery,
        access: Access::default(),
    });
    let holds = members.verify_grant(&sealed, now);
    let mut text = format!(
        "mesh     {id}\nsubject  {}\nrole     {}\nregion   {}\ntier     {}\nserial   {}\nissuer   {}{}\n",
        grant.subject,
        grant.role,
        region_text(grant.region.as_ref()),
        tier_text(grant.tier),
        grant.serial,
        grant.signer(),
        match (&grant.consent, &grant.invite) {
            (Some(_), _) => ", which passed it on",
            (_, Some(_)) => ", for an invite",
            _ => "",
        }
    );
    if holds.is_ok() {
        let left = duration_text(grant.expires_ms.saturating_sub(now));
        text += &format!("holds    for {left} more, unless it is revoked\n");
    }
    let said = stdout::write(text);
    // Whether it holds is told by the exit code too, also where nobody reads the rest.
    match holds {
        Ok(_) => Ok(said?),
        Err(error) => bail!("{}: {error}", file.display()),
    }
}

fn list(dir: &Path, json: bool) -> anyhow::Result<()> {
    let register = register::read(dir)?;
    let rows: Vec<_> = (register.grants.iter())
        .map(|entry| Listed {
            entry,
            revoked: register.is_revoked(entry),
        })
        .collect();
    if json {
        return print_json(&rows);
    }
    let now = now_ms();
    let mut table = format!(
        "{:>16}  {:<12}  {:<16}  {:<9}  {:<10}  SUBJECT\n",
        "SERIAL", "ROLE", "REGION", "TIER", "LEFT"
    );
    for row in &rows {
        let (entry, left) = (row.entry, row.left(row.entry.expires_ms, now));
        table += &format!(
            "{:>16}  {:<12}  {:<16}  {:<9}  {left:<10}  {}\n",
            entry.serial,
            entry.role.to_string(),
            region_text(entry.region.as_ref()),
            tier_text(entry.tier),
            entry.subject
        );
    }
    for revocation in &register.revocations {
        let order = RevocationOrder {
            target: revocation.target,
            keeps_issued: revocation.keeps_issued,
            reason: revocation.reason.clone(),
        };
        let ago = duration_text(now.saturating_sub(revocation.issued_ms));
        table += &format!("revoked {ago} ago: {}", describe(&order));
        if !order.reason.is_empty() {
            table += &format!(" ({})", order.reason);
        }
        table += "\n";
    }
    Ok(stdout::write(table)?)
}

fn region_text(region: Option<&Region>) -> &str {
    region.map_or("every region", Region::as_str)
}

pub(crate) fn tier_text(tier: Tier) -> &'static str {
    match tier {
        Tier::Trusted => "trusted",
        Tier::Untrusted => "untrusted",
    }
}

pub(crate) fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "trusted" => Ok(Tier::Trusted),
        "untrusted" => Ok(Tier::Untrusted),
        _ => Err("use trusted or untrusted".to_owned()),
    }
}
