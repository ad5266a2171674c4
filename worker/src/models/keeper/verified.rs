//! What is loaded into one engine: a model, or an adapter with its base.

use crate::device::Device;
use crate::engine::{Engine, Ready};
use crate::models::estimate::{Place, Size, bytes_of};
use crate::models::{Known, Served, cut};
use tether_artifact_store::VerifiedArtifact;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, Manifest};

/// Verified files of a model, or of an adapter and its base. [T-ART-6]
pub(super) struct Verified {
    /// What is offered and asked for by its name.
    pub(super) artifact: VerifiedArtifact,
    /// Of an adapter.
    pub(super) base: Option<VerifiedArtifact>,
}

impl Verified {
    /// Whether no file was touched since it was verified. Blocks.
    pub(super) fn is_untouched(&self) -> bool {
        let mut all = [Some(&self.artifact), self.base.as_ref()].into_iter();
        all.all(|it| it.is_none_or(VerifiedArtifact::is_untouched))
    }

    pub(super) fn digest(&self) -> Digest {
        self.artifact.digest()
    }

    pub(super) fn manifest(&self) -> &Manifest {
        self.artifact.manifest()
    }

    /// Whose weights, tokenizer and template are loaded.
    pub(super) fn model(&self) -> &Manifest {
        self.base.as_ref().unwrap_or(&self.artifact).manifest()
    }

    /// Most tokens of prompt and answer together.
    pub(super) fn context_tokens(&self) -> u32 {
        let own = self.manifest().context_tokens;
        own.min(self.model().context_tokens)
    }

    /// What is known of its memory before it is loaded.
    pub(super) fn size(&self, place: Place) -> Size {
        let adapter = self.base.as_ref().map(|_| self.manifest());
        Size::of(self.model(), place).with(adapter)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let adapter = self.base.as_ref().map_or(0, |_| bytes_of(self.manifest()));
        bytes_of(self.model()).saturating_add(adapter)
    }

    /// While it is cold.
    pub(super) fn known(&self, is_pinned: bool, process_bytes: u64, device: Device) -> Known {
        Known {
            offer: ModelOffer {
                model: self.manifest().model.clone(),
                digest: self.digest(),
                warm: false,
                context_tokens: self.context_tokens(),
                adapters: Vec::new(),
                numerics_class: String::new(),
            },
            base: self.manifest().base_digest,
            sequences: 0,
            max_token_bytes: None,
            is_pinned,
            process_bytes,
            device,
            processes: 1,
            load_ms: None,
        }
    }

    /// While it answers.
    pub(super) fn served(&self, ready: Ready, engine: &Engine) -> Box<Served> {
        Box::new(Served {
            offer: ModelOffer {
                model: self.manifest().model.clone(),
                digest: self.digest(),
                warm: true,
                context_tokens: ready.context_tokens,
                adapters: Vec::new(),
                numerics_class: cut(&ready.numerics_class, 96),
            },
            base: self.manifest().base_digest,
            engine_version: cut(&ready.engine, 64),
            sequences: ready.sequences,
            shields: ready.shields,
            max_token_bytes: ready.max_token_bytes,
            pids: ready.pids,
            fallen: ready.fallen,
            engine: engine.clone(),
        })
    }
}
