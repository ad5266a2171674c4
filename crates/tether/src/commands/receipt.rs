//! `tether receipt`: what a worker signed about an answer. (TRU-3)

mod found;
mod verdict;
mod words;

use crate::exit::NotReady;
use crate::stdout;
use anyhow::Context;
use clap::{Args, Subcommand};
use found::Found;
use serde_json::json;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use tether_gateway::saved;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{MeshId, NodeId};
pub(crate) use verdict::ReceiptRefused;
use verdict::{Against, judge};

/// Most bytes of a file that is read: more than any answer has.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What the codes mean, for `--help`.
const HELP: &str = "\
Exit codes beside the usual ones:
  10  it is no receipt, or its signature is wrong, or it is of another mesh
  11  the signer is not a worker of the mesh, or not the one of --worker
  12  it is not of this request
  13  it is not of this answer
  14  all of that holds, but by the mesh that the response itself names: without --mesh nothing is
      proved, since anybody can make a mesh and sign in it";

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Check a receipt: who signed it, what was asked, what was answered
    ///
    /// FILE is a saved response (JSON, or the stream as it came) with the receipt in it, or the
    /// receipt alone in base64; `-` is standard input. A response is held against its receipt without
    /// being named again by --answer. What cannot be known from the files is said. Only with --mesh
    /// it is a proof: the mesh that a response names may be its forger's own.
    #[command(after_long_help = format!("\
Examples:
  tether receipt verify answer.json --request request.json --mesh ID
  tether receipt verify stream.txt --request request.json --mesh $(cat mesh.id)
  tether receipt verify receipt.txt --mesh ID --worker ID --answer answer.json --json

{HELP}"))]
    Verify(Box<VerifyArgs>),
    /// Show what a receipt says, without judging it
    #[command(after_long_help = "\
Examples:
  tether receipt show answer.json
  tether receipt show - < receipt.txt")]
    Show {
        /// A saved response, or a receipt in base64; `-` is standard input
        file: PathBuf,
        /// Of several answers, the one of this number, from 0
        #[arg(long, value_name = "N", default_value_t = 0)]
        choice: u32,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `tether receipt verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A saved response, or a receipt in base64; `-` is standard input
    file: PathBuf,
    /// The request as it was sent: the JSON body
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The response: JSON, or the stream as it came [default: FILE, where that is a response]
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
    /// Of several answers, the one of this number, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    choice: u32,
    /// The mesh in which the receipt must count, as you know it. Without it the one that the response
    /// names is taken, which proves nothing: exit code 14
    #[arg(long, value_name = "ID")]
    mesh: Option<MeshId>,
    /// The recovery key of the mesh, where grants were given with it
    #[arg(long, value_name = "ID")]
    recovery: Option<NodeId>,
    /// The worker that must have signed
    #[arg(long, value_name = "ID")]
    worker: Option<NodeId>,
    /// The mesh is open: workers need no grant, so that a receipt may show none
    #[arg(long)]
    open: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl ReceiptCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(args) => args.run(),
            Self::Show { file, choice, json } => {
                let found = Found::in_file(&read(&file)?, choice)
                    .with_context(|| file.display().to_string())?;
                let (signer, receipt) = found.unverified()?;
                let said = if json {
                    let shown = words::json(&receipt);
                    stdout::line(json!({"verified": false, "worker": signer, "receipt": shown}))
                } else {
                    stdout::write(words::shown(&signer, &receipt))
                };
                Ok(said?)
            }
        }
    }
}

impl VerifyArgs {
    fn run(self) -> anyhow::Result<()> {
        let named = |path: &Path| path.display().to_string();
        let found =
            Found::in_file(&read(&self.file)?, self.choice).with_context(|| named(&self.file))?;
        let mesh = self.mesh.or_else(|| found.mesh()).ok_or_else(|| {
            anyhow::anyhow!("the file does not name the mesh of the receipt: give --mesh")
        })?;
        let request = match &self.request {
            Some(path) => {
                let request = saved::request(&read(path)?).map_err(anyhow::Error::msg);
                Some(request.with_context(|| format!("the request {}", named(path)))?)
            }
            None => None,
        };
        let answer = match &self.answer {
            Some(path) => {
                let answer = found::answer(&read(path)?, self.choice);
                Some(answer.with_context(|| format!("the answer {}", named(path)))?)
            }
            None => found.answer().cloned(),
        };
        let against = Against {
            mesh: Mesh {
                id: mesh,
                recovery: self.recovery,
                access: if self.open {
                    Access::Open
                } else {
                    Access::Invite
                },
            },
            worker: self.worker,
            choice: self.choice,
            request: request.as_ref(),
            answer: answer.as_ref(),
        };
        let mesh_was_given = self.mesh.is_some();
        match judge(&found.sealed(), &against) {
            Ok(proof) => {
                let unproved = (!mesh_was_given).then_some(ReceiptRefused::MeshNotGiven(mesh));
                if self.json {
                    stdout::line(words::proof_json(&proof, &against, unproved.as_ref()))?;
                } else {
                    stdout::write(words::proof(&proof, &against, mesh_was_given))?;
                }
                unproved.map_or(Ok(()), |refused| Err(refused.into()))
            }
            Err(refused) => {
                if self.json {
                    let why = refused.to_string();
                    // What is told is that it is refused, also where nobody reads why.
                    let _ = stdout::line(json!({
                        "valid": false, "code": refused.code(), "why": why,
                    }));
                }
                Err(refused.into())
            }
        }
    }
}

/// Reads a file, or standard input.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let at = || format!("cannot read {}", path.display());
    if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        (stdin.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).with_context(at)?;
    } else {
        let file = std::fs::File::open(path).with_context(at)?;
        (file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).with_context(at)?;
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let mib = MAX_FILE_BYTES / 1024 / 1024;
        return Err(NotReady(format!("{} has more than {mib} MiB", path.display())).into());
    }
    Ok(bytes)
}
