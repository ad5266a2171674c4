//! A receipt in a file: alone in base64, or inside a saved response.

use super::verdict::ReceiptRefused;
use anyhow::anyhow;
use tether_gateway::saved::{self, SavedAnswer};
use tether_wire::envelope::HEADER_LEN;
use tether_wire::receipt::MAX_RECEIPT_BYTES;
use tether_wire::{MeshId, NodeId, Receipt, Signed, codec};

/// What a file holds.
pub(super) struct Found {
    sealed: Vec<u8>,
    answer: Option<SavedAnswer>,
}

impl Found {
    /// Looks for a receipt; of several answers, the one of number `choice`.
    pub(super) fn in_file(bytes: &[u8], choice: u32) -> anyhow::Result<Self> {
        let alone = std::str::from_utf8(bytes).ok().and_then(saved::receipt);
        if let Some(sealed) = alone {
            return Ok(Self {
                sealed,
                answer: None,
            });
        }
        let answer = answer(bytes, choice)?;
        let sealed = answer.receipt.clone().ok_or(ReceiptRefused::None(
            "the response has no receipt: its worker gave none, or a wrong one",
        ))?;
        Ok(Self {
            sealed,
            answer: Some(answer),
        })
    }

    pub(super) fn sealed(&self) -> Signed<Receipt> {
        Signed::from_bytes(self.sealed.as_slice())
    }

    pub(super) fn answer(&self) -> Option<&SavedAnswer> {
        self.answer.as_ref()
    }

    /// The mesh that the response names.
    pub(super) fn mesh(&self) -> Option<MeshId> {
        self.answer()?.mesh
    }

    /// What it says and who claims to have signed it, with nothing checked.
    pub(super) fn unverified(&self) -> anyhow::Result<(NodeId, Receipt)> {
        let none = || ReceiptRefused::None("it is no receipt");
        let signer = self.sealed().claimed_signer().ok_or_else(none)?;
        let body = self.sealed.get(HEADER_LEN..).ok_or_else(none)?;
        let receipt = codec::decode("receipt", body, MAX_RECEIPT_BYTES).map_err(|_| none())?;
        Ok((signer, receipt))
    }
}

/// The answer of this number in a saved response.
pub(super) fn answer(bytes: &[u8], choice: u32) -> anyhow::Result<SavedAnswer> {
    let answers = saved::answers(bytes).map_err(anyhow::Error::msg)?;
    let count = answers.len();
    (answers.into_iter().find(|answer| answer.index == choice))
        .ok_or_else(|| anyhow!("it holds {count} answers and none of number {choice}"))
}
