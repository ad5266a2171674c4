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
use verdict::{Against, are_of_different_jobs, judge, judge_fingerprint, judge_usage};
use words::Judged;

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
    /// being named again by --answer: each of its answers, the counts, and what it says of itself
    /// (model, id, system_fingerprint, worker, mesh, seed). What could not be compared is said, and
    /// what no receipt covers: `created`, `logprobs`, headers and who asked. Only with --mesh it is a
    /// proof: the mesh that a response names may be its forger's own.
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
    /// Of several answers, only the one of this number, from 0 [default: all]
    #[arg(long, value_name = "N")]
    choice: Option<u32>,
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
                let named = || file.display().to_string();
                let found = Found::in_file(&read(&file)?, Some(choice)).with_context(named)?;
                let held = found.held.first().with_context(named)?;
                let (signer, receipt) = held.unverified().with_context(named)?;
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
        let other = match &self.answer {
            Some(path) => {
                let other = found::response(&read(path)?);
                Some(other.with_context(|| format!("the answer {}", named(path)))?)
            }
            None => None,
        };
        let usage = match &other {
            Some(other) => found::usage_of(other, &found.choices()),
            None => found.usage,
        };
        let (mut proofs, mut all) = (Vec::new(), Vec::new());
        for held in &found.held {
            let answer = match &other {
                Some(other) => Some(found::answer(other, held.choice)?),
                None => held.answer.as_ref(),
            };
            let against = Against {
                mesh: self.mesh(mesh),
                worker: self.worker,
                choice: held.choice,
                request: request.as_ref(),
                answer,
            };
            match held.sealed().and_then(|sealed| judge(&sealed, &against)) {
                Ok(proof) => proofs.push(proof),
                Err(refused) => {
                    let of = (found.held.len() > 1).then_some(held.choice);
                    return Err(self.refused(refused, of));
                }
            }
            all.push(against);
        }
        let together = are_of_different_jobs(&proofs)
            .and_then(|()| usage.map_or(Ok(()), |usage| judge_usage(&proofs, &usage)));
        let answers = other.as_ref().map_or(found.answers, |it| it.answers.len());
        let said = all
            .iter()
            .find_map(|it| it.answer?.says.fingerprint.as_deref());
        let fingerprint = together
            .and_then(|()| judge_fingerprint(&proofs, said, answers == proofs.len()))
            .map_err(|refused| self.refused(refused, None))?;
        let unproved = (self.mesh.is_none()).then_some(ReceiptRefused::MeshNotGiven(mesh));
        let judged = Judged {
            mesh,
            answers: proofs.iter().zip(all).collect(),
            usage: usage.is_some(),
            fingerprint,
            unproved: unproved.as_ref(),
        };
        if self.json {
            stdout::line(judged.json())?;
        } else {
            stdout::write(judged.text())?;
        }
        unproved.map_or(Ok(()), |refused| Err(refused.into()))
    }

    fn mesh(&self, id: MeshId) -> Mesh {
        Mesh {
            id,
            recovery: self.recovery,
            access: if self.open {
                Access::Open
            } else {
                Access::Invite
            },
        }
    }

    /// The receipts are refused, of several that of one answer.
    fn refused(&self, refused: ReceiptRefused, choice: Option<u32>) -> anyhow::Error {
        if self.json {
            let why = refused.to_string();
            let mut said = json!({"valid": false, "code": refused.code(), "why": why});
            if let (Some(choice), Some(fields)) = (choice, said.as_object_mut()) {
                fields.insert("choice".to_owned(), choice.into());
            }
            // What is told is that it is refused, also where nobody reads why.
            let _ = stdout::line(said);
        }
        let refused = anyhow::Error::from(refused);
        match choice {
            Some(choice) => refused.context(format!("answer {choice}")),
            None => refused,
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
