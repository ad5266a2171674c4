//! `tether grant`: who may do what in a mesh. (NET-8)

use crate::authority::mesh_dir::{Issuer, Order};
use crate::authority::{grant_file, mesh_id, now_ms, register};
use crate::stdout;
use anyhow::{Context, bail};
use clap::Subcommand;
use std::path::PathBuf;
use tether_wire::grant::{MAX_GRANT_LIFE_MS, Role, Tier};
use tether_wire::{MeshId, NodeId, Region};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Give a key a role; prints the grant's serial
    ///
    /// The grant is entered in the register beside the operator's key (grants.jsonl). A copy of the
    /// key elsewhere has a register of its own; serials are drawn at random, so that no two grants
    /// have the same.
    ///
    /// In this version a grant ends by its time alone: there is no way yet to revoke one before.
    /// Give no longer than you would trust a lost key (--ttl), and renew.
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
    },
    /// List the grants that were issued from a mesh folder
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
    /// Key file of the operator
    #[arg(long, value_name = "KEY")]
    operator: PathBuf,
    /// The mesh id, to make sure that the key is the one of this mesh
    #[arg(long, value_name = "ID")]
    mesh: Option<MeshId>,
    /// The operator's own grant, where it is the operator of a region and not of the mesh
    #[arg(long, value_name = "FILE")]
    operator_grant: Option<PathBuf>,
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
    #[arg(long, default_value = "90d", value_parser = parse_life_ms)]
    ttl: u64,
    /// Where to write the grant; a file that is there is not overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl GrantCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Issue(args) => issue(args),
            Self::Show { file } => show(&file),
            Self::Ls { dir, json } => list(&dir, json),
        }
    }
}

fn issue(args: IssueArgs) -> anyhow::Result<()> {
    let now = now_ms();
    // Before one is entered that nobody gets.
    grant_file::require_free(&args.out)?;
    let issuer = match &args.operator_grant {
        None => {
            mesh_id::require_operator(&args.operator, args.mesh)?;
            Issuer::operator(&args.operator)?
        }
        Some(file) => {
            let issuer = Issuer::regional(&args.operator, &grant_file::read(file)?, now)?;
            let own = issuer.mesh();
            if let Some(named) = args.mesh.filter(|named| *named != own) {
                bail!(
                    "{} is a grant in mesh {own}, but --mesh says {named}",
                    file.display()
                );
            }
            issuer
        }
    };
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

fn show(file: &std::path::Path) -> anyhow::Result<()> {
    let sealed = grant_file::read(file)?;
    let Some((mesh, grant)) = grant_file::inspect(&sealed) else {
        bail!(
            "{}: the signature of the grant is wrong: ask the operator for a new one",
            file.display()
        );
    };
    let now = now_ms();
    let holds = sealed.verify_grant(&mesh, now);
    let mut text = format!(
        "mesh     {mesh}\nsubject  {}\nrole     {}\nregion   {}\ntier     {}\nserial   {}\nissuer   {}\n",
        grant.subject,
        grant.role,
        region_text(grant.region.as_ref()),
        tier_text(grant.tier),
        grant.serial,
        grant.signer(),
    );
    if holds.is_ok() {
        let left = duration_text(grant.expires_ms.saturating_sub(now));
        text += &format!("holds    for {left} more\n");
    }
    let said = stdout::write(text);
    // Whether it holds is told by the exit code too, also where nobody reads the rest.
    match holds {
        Ok(_) => Ok(said?),
        Err(error) => bail!("{}: {error}", file.display()),
    }
}

fn list(dir: &std::path::Path, json: bool) -> anyhow::Result<()> {
    let entries = register::entries(dir)?;
    if json {
        let text = serde_json::to_string(&entries).context("cannot encode the register")?;
        return Ok(stdout::line(text)?);
    }
    let now = now_ms();
    let mut table = format!(
        "{:>16}  {:<12}  {:<16}  {:<9}  {:<10}  SUBJECT\n",
        "SERIAL", "ROLE", "REGION", "TIER", "LEFT"
    );
    for entry in entries {
        let left = match entry.expires_ms.checked_sub(now) {
            Some(left) if left > 0 => duration_text(left),
            _ => "expired".to_owned(),
        };
        table += &format!(
            "{:>16}  {:<12}  {:<16}  {:<9}  {left:<10}  {}\n",
            entry.serial,
            entry.role.to_string(),
            region_text(entry.region.as_ref()),
            tier_text(entry.tier),
            entry.subject
        );
    }
    Ok(stdout::write(table)?)
}

fn region_text(region: Option<&Region>) -> &str {
    region.map_or("every region", Region::as_str)
}

fn tier_text(tier: Tier) -> &'static str {
    match tier {
        Tier::Trusted => "trusted",
        Tier::Untrusted => "untrusted",
    }
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "trusted" => Ok(Tier::Trusted),
        "untrusted" => Ok(Tier::Untrusted),
        _ => Err("use trusted or untrusted".to_owned()),
    }
}

const UNITS: [(&str, u64); 4] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

fn parse_life_ms(text: &str) -> Result<u64, String> {
    let (count, unit_ms) = UNITS
        .iter()
        .find_map(|(unit, ms)| {
            let count = text.strip_suffix(unit)?;
            let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some((count, *ms))
        })
        .ok_or("use a number with s, m, h or d, such as 90d")?;
    // A number with more digits than a u64 has is out of the range too.
    count
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit_ms))
        .filter(|ms| (1..=MAX_GRANT_LIFE_MS).contains(ms))
        .ok_or_else(|| {
            format!(
                "a grant holds from 1s to {} (two years)",
                duration_text(MAX_GRANT_LIFE_MS)
            )
        })
}

fn duration_text(ms: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit_ms)| ms >= *unit_ms)
        .map_or_else(
            || "less than 1s".to_owned(),
            |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_shown() {
        assert_eq!(parse_life_ms("90d"), Ok(90 * 86_400_000));
        assert_eq!(parse_life_ms("15m"), Ok(900_000));
        for bad in ["", "90", "d", "-1d", "0s", "1w", "99999999999999999999d"] {
            assert!(parse_life_ms(bad).is_err(), "{bad}");
        }
        for outside in ["0s", "733d", "9000d", "99999999999999999999d"] {
            let error = parse_life_ms(outside).expect_err(outside);
            assert!(error.contains("from 1s to 732d"), "{error}");
        }
        assert_eq!(parse_life_ms("732d"), Ok(MAX_GRANT_LIFE_MS));
        assert_eq!(duration_text(90 * 86_400_000), "90d");
        assert_eq!(duration_text(999), "less than 1s");
    }
}
