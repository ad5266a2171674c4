//! Receipts in a file: one alone in base64, or those of the answers of a saved response.

use super::verdict::ReceiptRefused;
use anyhow::anyhow;
use tether_gateway::saved::{self, SavedAnswer, SavedResponse, SavedUsage};
use tether_wire::envelope::HEADER_LEN;
use tether_wire::receipt::MAX_RECEIPT_BYTES;
use tether_wire::{MeshId, NodeId, Receipt, Signed, codec};

/// What a file holds.
pub(super) struct Found {
    /// At least one.
    pub(super) held: Vec<Held>,
    /// The counts of all answers together, where all are held.
    pub(super) usage: Option<SavedUsage>,
    /// Answers of the response, held or not.
    pub(super) answers: usize,
}

/// A receipt, and what it is of.
pub(super) struct Held {
    /// Which of the answers to its request.
    pub(super) choice: u32,
    sealed: Option<Vec<u8>>,
    /// The answer beside it.
    pub(super) answer: Option<SavedAnswer>,
}

impl Found {
    /// Looks for receipts; of several answers those of all, or that of number `choice`.
    pub(super) fn in_file(bytes: &[u8], choice: Option<u32>) -> anyhow::Result<Self> {
        let alone = std::str::from_utf8(bytes).ok().and_then(saved::receipt);
        if let Some(sealed) = alone {
            let held = Held {
                choice: choice.unwrap_or(0),
                sealed: Some(sealed),
                answer: None,
            };
            return Ok(Self {
                held: vec![held],
                usage: None,
                answers: 1,
            });
        }
        let response = response(bytes)?;
        let answers = response.answers.len();
        let Some(choice) = choice else {
            let held = response.answers.into_iter().map(Held::new).collect();
            let usage = response.usage;
            return Ok(Self {
                held,
                usage,
                answers,
            });
        };
        let usage = usage_of(&response, &[choice]);
        let held = vec![Held::new(answer(&response, choice)?.clone())];
        Ok(Self {
            held,
            usage,
            answers,
        })
    }

    /// The mesh that the response names.
    pub(super) fn mesh(&self) -> Option<MeshId> {
        (self.held.iter()).find_map(|held| held.answer.as_ref()?.says.mesh())
    }

    /// The numbers of the answers.
    pub(super) fn choices(&self) -> Vec<u32> {
        self.held.iter().map(|held| held.choice).collect()
    }
}

impl Held {
    fn new(answer: SavedAnswer) -> Self {
        Self {
            choice: answer.index,
            sealed: answer.receipt.clone(),
            answer: Some(answer),
        }
    }

    pub(super) fn sealed(&self) -> Result<Signed<Receipt>, ReceiptRefused> {
        let sealed = self.sealed.as_deref().ok_or(ReceiptRefused::None(
            "the answer has no receipt: its worker gave none, or a wrong one",
        ))?;
        Ok(Signed::from_bytes(sealed))
    }

    /// What it says and who claims to have signed it, with nothing checked.
    pub(super) fn unverified(&self) -> Result<(NodeId, Receipt), ReceiptRefused> {
        let none = || ReceiptRefused::None("it is no receipt");
        let sealed = self.sealed()?;
        let signer = sealed.claimed_signer().ok_or_else(none)?;
        let body = sealed.as_bytes().get(HEADER_LEN..).ok_or_else(none)?;
        let receipt = codec::decode("receipt", body, MAX_RECEIPT_BYTES).map_err(|_| none())?;
        Ok((signer, receipt))
    }
}

/// Reads a saved response.
pub(super) fn response(bytes: &[u8]) -> anyhow::Result<SavedResponse> {
    saved::response(bytes).map_err(anyhow::Error::msg)
}

/// The answer of this number in a saved response.
pub(super) fn answer(response: &SavedResponse, choice: u32) -> anyhow::Result<&SavedAnswer> {
    let count = response.answers.len();
    (response
        .answers
        .iter()
        .find(|answer| answer.index == choice))
    .ok_or_else(|| anyhow!("it holds {count} answers and none of number {choice}"))
}

/// The counts of a response, where all that they are of is among these answers.
pub(super) fn usage_of(response: &SavedResponse, choices: &[u32]) -> Option<SavedUsage> {
    let mut answers = response.answers.iter();
    let are_all = answers.all(|answer| choices.contains(&answer.index));
    response.usage.filter(|_| are_all)
}
