//! Workers that exist only as keys: what they would send, sealed as they would seal it.

use std::time::{SystemTime, UNIX_EPOCH};
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::grant::{Access, Mesh};
use tether_wire::spread::Push;
use tether_wire::{
    Beat, Card, Digest, Grant, MeshId, ModelRef, NodeId, NodeKey, Region, Role, Signed, Tier, codec,
};

/// A day: grants of the population hold for as long.
const DAY_MS: u64 = 24 * 3_600_000;

/// Who there is, and in which mesh.
#[derive(Debug)]
pub(super) struct Population {
    operator: NodeKey,
    models: u32,
    regions: u32,
    distinct: bool,
    epoch: u64,
}

/// Sealed by a worker, as it is pushed.
pub(super) struct Sealed {
    pub(super) worker: NodeId,
    /// The item of its `presence` call.
    pub(super) item: Vec<u8>,
    /// The sealed beat in it.
    pub(super) beat: Vec<u8>,
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

impl Population {
    pub(super) fn new(models: u32, regions: u32, distinct: bool) -> Self {
        Self {
            operator: NodeKey::from_seed([7; 32]),
            models,
            regions,
            distinct,
            epoch: now_ms(),
        }
    }

    pub(super) fn mesh(&self) -> Mesh {
        Mesh {
            id: MeshId(self.operator.id().0),
            recovery: None,
            access: Access::Invite,
        }
    }

    /// The key of worker `n`: each has its own.
    pub(super) fn key(&self, n: usize) -> NodeKey {
        let digest = Digest::of(format!("worker {n} of a benchmark").as_bytes());
        NodeKey::from_seed(digest.0)
    }

    pub(super) fn region(&self, n: usize) -> anyhow::Result<Region> {
        let at = n % usize::try_from(self.regions)?;
        Ok(Region::new(format!("region-{at}"))?)
    }

    /// Model `n` and its artifact.
    pub(super) fn model(&self, n: usize) -> anyhow::Result<(ModelRef, Digest)> {
        let at = n % usize::try_from(self.models)?;
        let model: ModelRef = format!("model-of-some-size-{at}@1.0").parse()?;
        let digest = Digest::of(model.to_string().as_bytes());
        Ok((model, digest))
    }

    /// The card of worker `n`, as long as real ones.
    pub(super) fn card(&self, n: usize) -> anyhow::Result<Signed<Card>> {
        let (key, mesh) = (self.key(n), self.mesh().id);
        let grant = Grant {
            subject: key.id(),
            role: Role::Worker,
            region: Some(self.region(n)?),
            tier: Tier::Trusted,
            not_before_ms: self.epoch - 1,
            expires_ms: self.epoch + DAY_MS,
            serial: u64::try_from(n)?,
            issuer: None,
            consent: None,
            invite: None,
        };
        let grant = Signed::seal(&self.operator, &mesh, &grant)?;
        let offers = [0, 1].map(|next| {
            let (model, digest) = self.model(n / usize::try_from(self.regions)? + next)?;
            Ok(ModelOffer {
                model,
                digest,
                warm: next == 0,
                context_tokens: 8_192,
                adapters: Vec::new(),
                numerics_class: "mistralrs-0.8.1/x86-64-v3/q8_0".into(),
            })
        });
        let models = offers.into_iter().collect::<anyhow::Result<_>>()?;
        let card = Card {
            role: Role::Worker,
            epoch: self.epoch,
            revision: 1,
            issued_ms: self.epoch,
            region: self.region(n)?,
            grant: Some(grant.as_bytes().to_vec()),
            agent: concat!("tether ", env!("CARGO_PKG_VERSION")).into(),
            minor: 0,
            addresses: vec![format!("192.0.2.{}:4433", n % 256)],
            worker: Some(WorkerCard {
                gpu_class: "rtx-4090".into(),
                vram_gb: 24,
                accelerators: 1,
                capacity: 8,
                models,
                faults: Vec::new(),
                price_per_1k_micro: if self.distinct {
                    u64::try_from(n)?
                } else {
                    100
                },
                tier: Tier::Trusted,
                engine: "mistralrs 0.8.1".into(),
            }),
        };
        Ok(Signed::seal(&key, &mesh, &card)?)
    }

    /// Beat `seq` of worker `n`, with its card where it is given.
    pub(super) fn push(
        &self,
        n: usize,
        seq: u64,
        state: NodeState,
        card: Digest,
        with: Option<&Signed<Card>>,
    ) -> anyhow::Result<Sealed> {
        let key = self.key(n);
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&Digest::of(&seq.to_be_bytes()).0[..16]);
        let beat = Beat {
            epoch: self.epoch,
            seq,
            nonce,
            issued_ms: now_ms(),
            state,
            card,
            queue_depth: u32::try_from(n % 5)?,
            in_flight: u32::try_from(n % 9)?,
            tokens_per_s: 320.5,
            first_token_ms: 120,
            vitals: None,
        };
        let beat = Signed::seal(&key, &self.mesh().id, &beat)?;
        let push = Push {
            beat: beat.as_bytes().to_vec(),
            card: with.map(|card| card.as_bytes().to_vec()),
        };
        Ok(Sealed {
            worker: key.id(),
            item: codec::encode(&push),
            beat: push.beat,
        })
    }
}
