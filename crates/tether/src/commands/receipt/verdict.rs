//! Whether a receipt is genuine, and of this request and this answer. Pure.

use std::collections::BTreeSet;
use tether_gateway::saved::{self, SavedAnswer, SavedRequest, SavedUsage, Says};
use tether_wire::grant::Mesh;
use tether_wire::infer::{CallDelta, Finish, call_id};
use tether_wire::receipt::hash::Given;
use tether_wire::receipt::{self, Proof, ReceiptError};
use tether_wire::{Digest, MeshId, NodeId, Receipt, Signed, Verified};

/// What a receipt is held against.
pub(super) struct Against<'a> {
    pub(super) mesh: Mesh,
    pub(super) worker: Option<NodeId>,
    /// Which of the request's answers it is of.
    pub(super) choice: u32,
    pub(super) request: Option<&'a SavedRequest>,
    pub(super) answer: Option<&'a SavedAnswer>,
}

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReceiptRefused {
    /// There is none.
    #[error("{0}")]
    None(&'static str),
    /// It proves nothing.
    #[error(transparent)]
    Invalid(ReceiptError),
    /// Somebody else signed.
    #[error("the receipt is signed by worker {signer}, not by {expected}")]
    Worker {
        /// Who signed.
        signer: NodeId,
        /// Who was to.
        expected: NodeId,
    },
    /// Another request.
    #[error("the receipt is not of this request: {0}")]
    Request(&'static str),
    /// Another answer.
    #[error("the receipt is not of this answer: {0}")]
    Answer(&'static str),
    /// Everything holds, in a mesh that whoever wrote the response chose.
    #[error(
        "the receipt counts in the mesh {0}, which the response itself names: anybody can make a mesh and sign in it, so give the one that you know by --mesh"
    )]
    MeshNotGiven(MeshId),
}

impl ReceiptRefused {
    /// See [`super::HELP`].
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::None(_) | Self::Invalid(ReceiptError::Invalid(_)) => 10,
            Self::Invalid(_) | Self::Worker { .. } => 11,
            Self::Request(_) => 12,
            Self::Answer(_) => 13,
            Self::MeshNotGiven(_) => 14,
        }
    }

    /// A stable word for it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::None(_) => "no-receipt",
            Self::Invalid(ReceiptError::Invalid(_)) => "invalid",
            Self::Invalid(_) => "role",
            Self::Worker { .. } => "worker",
            Self::Request(_) => "request",
            Self::Answer(_) => "answer",
            Self::MeshNotGiven(_) => "mesh-not-given",
        }
    }
}

/// Judges a receipt; what there is nothing to hold it against is not judged.
pub(super) fn judge(
    sealed: &Signed<Receipt>,
    against: &Against<'_>,
) -> Result<Proof, ReceiptRefused> {
    let proof = receipt::verify(sealed, &against.mesh).map_err(ReceiptRefused::Invalid)?;
    let signer = proof.receipt.signer();
    if let Some(expected) = against.worker.filter(|worker| *worker != signer) {
        return Err(ReceiptRefused::Worker { signer, expected });
    }
    if let Some(request) = against.request {
        let says = against.answer.map(|answer| &answer.says);
        is_of_request(&proof.receipt, request, against.choice, says)
            .map_err(ReceiptRefused::Request)?;
    }
    if let Some(answer) = against.answer {
        is_of_answer(&proof.receipt, answer).map_err(ReceiptRefused::Answer)?;
        let said = is_as_said(
            &proof.receipt,
            &against.mesh.id,
            against.choice,
            &answer.says,
        );
        said.map_err(ReceiptRefused::Answer)?;
    }
    Ok(proof)
}

fn is_of_request(
    receipt: &Receipt,
    request: &SavedRequest,
    choice: u32,
    says: Option<&Says>,
) -> Result<(), &'static str> {
    let model = receipt.model.to_string();
    let is_named = request.model == model || request.model == receipt.model.name.as_str();
    if !is_named && !says.is_some_and(|says| is_degraded(says, &request.model)) {
        return Err("another model was asked for");
    }
    if request
        .seed(choice)
        .is_some_and(|seed| seed != receipt.seed)
    {
        return Err("another seed was asked for");
    }
    // What the request left open may have been set by a policy, as the response says.
    let limits = [None, says.and_then(Says::limit)];
    let mut digests = limits
        .map(|limit| request.digest(receipt.seed, limit))
        .into_iter();
    if !digests.any(|digest| digest == receipt.request) {
        return Err("something else was asked: the messages, or a parameter, differ");
    }
    Ok(())
}

/// Whether a response says that a smaller model answered in the place of this one.
fn is_degraded(says: &Says, asked: &str) -> bool {
    let from = says.degraded_from.as_deref();
    from.is_some_and(|from| from == asked || from.split('@').next() == Some(asked))
}

fn is_of_answer(receipt: &Receipt, answer: &SavedAnswer) -> Result<(), &'static str> {
    let mut given = Given::default();
    given.take_text(&answer.text);
    for (index, (name, arguments)) in (0..).zip(&answer.calls) {
        given.take_call(&CallDelta {
            index,
            id: None,
            name: Some(name.clone()),
            arguments: arguments.clone(),
        });
    }
    if given.text() != receipt.text {
        return Err("the text differs from what was signed");
    }
    if given.calls() != receipt.calls {
        return Err("the calls of tools differ from what was signed");
    }
    for (index, id) in (0..).zip(&answer.call_ids) {
        if (id.as_ref()).is_some_and(|id| *id != call_id(&receipt.correlation, index)) {
            return Err("the id of a call is not that of this job");
        }
    }
    if (answer.finish.as_deref()).is_some_and(|finish| finish != Finish::as_str(receipt.finish)) {
        return Err("it ended for another reason than was signed");
    }
    Ok(())
}

/// Holds what the response says of itself against the receipt; what it does not say is not judged.
fn is_as_said(
    receipt: &Verified<Receipt>,
    mesh: &MeshId,
    choice: u32,
    says: &Says,
) -> Result<(), &'static str> {
    let differs = |said: &Option<String>, signed: &[String]| {
        said.as_ref().is_some_and(|said| !signed.contains(said))
    };
    let (model, name) = (receipt.model.to_string(), receipt.model.name.to_string());
    if differs(&says.model, &[model.clone(), name]) || differs(&says.tether_model, &[model]) {
        return Err("it names another model than was signed");
    }
    if differs(&says.worker, &[receipt.signer().to_hex()]) {
        return Err("it names another worker than signed");
    }
    if differs(&says.mesh, &[mesh.to_hex()]) {
        return Err("it names another mesh than that in which the receipt counts");
    }
    if differs(&says.seed, &[receipt.seed.cast_signed().to_string()]) {
        return Err("it names another seed than was signed");
    }
    // The id is of the first answer's job. Those of the others follow from the tenant's key, which
    // is not here.
    if choice == 0 && says.job().is_some_and(|job| job != receipt.correlation) {
        return Err("its `id` is of another job than was signed");
    }
    Ok(())
}

/// Each answer is a job of its own, so that one receipt is never of two, however alike they are.
pub(super) fn are_of_different_jobs(proofs: &[Proof]) -> Result<(), ReceiptRefused> {
    let jobs: BTreeSet<_> = proofs.iter().map(|it| it.receipt.correlation).collect();
    if jobs.len() < proofs.len() {
        return Err(ReceiptRefused::Answer(
            "two answers show receipts of one job",
        ));
    }
    Ok(())
}

/// What a receipt says that a `system_fingerprint` follows from.
struct MadeWith<'a> {
    digest: &'a Digest,
    numerics_class: &'a str,
    /// Whether another worker began the answer.
    is_continued: bool,
}

/// Holds the `system_fingerprint` of a response against the receipts of its answers. `all`: whether they
/// are of all its answers. Whether it could be compared: it is of whoever began one of them, and who
/// went on with that may be of another numerics class.
pub(super) fn judge_fingerprint(
    proofs: &[Proof],
    said: Option<&str>,
    all: bool,
) -> Result<bool, ReceiptRefused> {
    let made_with = proofs.iter().map(|proof| MadeWith {
        digest: &proof.receipt.digest,
        numerics_class: &proof.receipt.numerics_class,
        is_continued: proof.receipt.continued_from > 0,
    });
    let made_with: Vec<_> = made_with.collect();
    is_made_with(&made_with, said, all).map_err(ReceiptRefused::Answer)
}

fn is_made_with(
    answers: &[MadeWith<'_>],
    said: Option<&str>,
    all: bool,
) -> Result<bool, &'static str> {
    let Some(said) = said else { return Ok(true) };
    // A model that was loaded for this request had no class yet when its answer began.
    let is_it = |it: &MadeWith<'_>| {
        let classes = [it.numerics_class, ""];
        (classes.iter()).any(|class| saved::fingerprint(it.digest, class) == said)
    };
    if answers.iter().any(is_it) {
        return Ok(true);
    }
    if !all || answers.iter().any(|it| it.is_continued) {
        return Ok(false);
    }
    Err("its `system_fingerprint` is not of the artifact and the numerics class that were signed")
}

/// Holds the counts of a response against the receipts of all its answers.
pub(super) fn judge_usage(proofs: &[Proof], usage: &SavedUsage) -> Result<(), ReceiptRefused> {
    let prompts = proofs.iter().map(|it| u64::from(it.receipt.prompt_tokens));
    let completions = proofs
        .iter()
        .map(|it| u64::from(it.receipt.completion_tokens));
    // The prompt is the same for all, and counted once.
    let (prompt, completion) = (prompts.max().unwrap_or(0), completions.sum::<u64>());
    let total = usage.total.unwrap_or(prompt + completion);
    if (usage.prompt, usage.completion, total) != (prompt, completion, prompt + completion) {
        let why = "the counts of tokens differ from what was signed";
        return Err(ReceiptRefused::Answer(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest([1; 32]);

    fn by(numerics_class: &str, is_continued: bool) -> MadeWith<'_> {
        MadeWith {
            digest: &DIGEST,
            numerics_class,
            is_continued,
        }
    }

    #[test]
    fn a_fingerprint_of_another_artifact_or_class_is_refused_where_it_can_be_compared() {
        let said = saved::fingerprint(&DIGEST, "cpu");
        let judge = |answers: &[MadeWith<'_>], all| is_made_with(answers, Some(&said), all);
        assert_eq!(judge(&[by("cpu", false)], true), Ok(true));
        assert!(judge(&[by("cuda", false)], true).is_err());
        let (cpu, cuda) = (by("cpu", false), by("cuda", false));
        assert_eq!(judge(&[cuda, cpu], true), Ok(true), "one of them is named");
        assert_eq!(judge(&[by("cuda", true)], true), Ok(false), "another began");
        assert_eq!(judge(&[by("cuda", false)], false), Ok(false), "of several");
        let cold = saved::fingerprint(&DIGEST, "");
        assert_eq!(
            is_made_with(&[by("cpu", false)], Some(&cold), true),
            Ok(true)
        );
        assert_eq!(is_made_with(&[by("cpu", false)], None, true), Ok(true));
    }
}
