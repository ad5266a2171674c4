//! Models for a new configuration: there with all their files, rightly signed, by somebody who is
//! trusted, and each of them once.

use super::questions::Questions;
use anyhow::Context;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tether_artifact_store::{MANIFEST_FILE, Trust, complete, read_manifest};
use tether_wire::envelope::HEADER_LEN;
use tether_wire::{Digest, Manifest, ModelRef, NodeId, Signed};

/// A model that is to be served.
pub(super) struct Chosen {
    pub(super) path: PathBuf,
    pub(super) model: ModelRef,
    pub(super) digest: Digest,
    pub(super) publisher: NodeId,
}

/// Models that were given, or else those that are answered.
pub(super) fn choose(
    ask: &mut Questions,
    given: &[PathBuf],
    publishers: &mut Vec<NodeId>,
) -> anyhow::Result<Vec<Chosen>> {
    let mut chosen = Vec::new();
    for path in given {
        let one = one(ask, path, &chosen, publishers)?;
        chosen.push(one);
    }
    while given.is_empty() && ask.can() {
        let what = "Folder of a packed model (empty: no more)";
        let Some(path) = ask.text(what)?.map(PathBuf::from) else {
            break;
        };
        match one(ask, &path, &chosen, publishers) {
            Ok(one) => chosen.push(one),
            Err(error) => ask.say(&format!("  not taken: {error:#}"))?,
        }
    }
    Ok(chosen)
}

/// Reads a model's manifest and makes sure that its publisher is trusted.
fn one(
    ask: &mut Questions,
    path: &Path,
    others: &[Chosen],
    publishers: &mut Vec<NodeId>,
) -> anyhow::Result<Chosen> {
    let shown = path.display();
    let path = std::fs::canonicalize(path).with_context(|| format!("the model {shown}"))?;
    let mut bytes = Vec::new();
    (File::open(path.join(MANIFEST_FILE)))
        .and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut bytes))
        .with_context(|| format!("{shown} is no packed model: see `tether artifact pack`"))?;
    let publisher = Signed::<Manifest>::from_bytes(bytes)
        .claimed_signer()
        .with_context(|| format!("the manifest of {shown} is not signed"))?;
    // Its signature is checked before anything of it is shown.
    let (digest, manifest) = read_manifest(&path, &Trust::in_publishers([publisher]))
        .with_context(|| format!("the model {shown}"))?;
    let model = manifest.model.clone();
    if let Some(other) = others.iter().find(|other| other.digest == digest) {
        let other = other.path.display();
        anyhow::bail!("{shown} holds {model}, the same artifact as {other}: give it once");
    }
    // What is in the files is verified when the worker starts.
    complete(&path, &manifest).with_context(|| format!("the model {shown} is not whole"))?;
    if !publishers.contains(&publisher) {
        ask.say(&format!(
            "  {model}, digest {digest}\n  signed by {publisher}"
        ))?;
        if !ask.agrees("Trust this publisher's models?")? {
            anyhow::bail!(
                "{model} is signed by {publisher}, who is not trusted: give --publisher {publisher} if you know this key"
            );
        }
        publishers.push(publisher);
    }
    Ok(Chosen {
        path,
        model,
        digest,
        publisher,
    })
}
