//! What a node says: its card, which is a new one only when something in it changed, and its beats.
//! Pure: time and nonce are passed in.

use std::net::SocketAddr;
use tether_wire::beat::{NodeState, Order, Vitals};
use tether_wire::card::{MAX_ADDRESSES, WorkerCard};
use tether_wire::{
    Beat, Card, Digest, MeshId, NodeKey, PROTOCOL_MINOR, Region, Role, Signed, VerifyError,
};

/// What a node is doing and what it has to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it is doing.
    pub state: NodeState,
    /// What it has to offer; there if and only if it is a worker.
    pub worker: Option<WorkerCard>,
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that wait in it.
    pub queue_depth: u32,
    /// Requests that it runs now.
    pub in_flight: u32,
    /// Tokens in a second that it made of late.
    pub tokens_per_s: f32,
    /// Milliseconds to the first token of late, median; 0 is unknown.
    pub first_token_ms: u32,
    /// How the machine is, where it is a worker's.
    pub vitals: Option<Vitals>,
}

/// A beat and the card that it names.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The sealed card.
    pub card: Signed<Card>,
    /// Its digest.
    pub digest: Digest,
    /// The sealed beat.
    pub beat: Signed<Beat>,
    /// The beat's order.
    pub order: Order,
    /// Whether it is the goodbye.
    pub is_goodbye: bool,
}

/// Who speaks.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) key: NodeKey,
    pub(super) mesh: MeshId,
    pub(super) role: Role,
    pub(super) region: Region,
    pub(super) grant: Option<Vec<u8>>,
    pub(super) agent: String,
    pub(super) epoch: u64,
}

pub(super) struct Composer {
    identity: Identity,
    seq: u64,
    card: Option<(Card, Signed<Card>, Digest)>,
}

impl Composer {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            seq: 0,
            card: None,
        }
    }

    /// The next beat, with a new card where something of it changed.
    pub(super) fn compose(
        &mut self,
        told: &Told,
        addresses: &[SocketAddr],
        load: Load,
        now_unix_ms: u64,
        nonce: [u8; 16],
    ) -> Result<Sealed, VerifyError> {
        let (card, digest) = self.card(told.worker.as_ref(), addresses, now_unix_ms)?;
        self.seq += 1;
        let beat = Beat {
            epoch: self.identity.epoch,
            seq: self.seq,
            nonce,
            issued_ms: now_unix_ms,
            state: told.state,
            card: digest,
            queue_depth: load.queue_depth,
            in_flight: load.in_flight,
            tokens_per_s: load.tokens_per_s,
            first_token_ms: load.first_token_ms,
            vitals: load.vitals,
        };
        Ok(Sealed {
            card,
            digest,
            beat: Signed::seal(&self.identity.key, &self.identity.mesh, &beat)?,
            order: beat.order(),
            is_goodbye: told.state == NodeState::Leaving,
        })
    }

    fn card(
        &mut self,
        worker: Option<&WorkerCard>,
        addresses: &[SocketAddr],
        now_unix_ms: u64,
    ) -> Result<(Signed<Card>, Digest), VerifyError> {
        let identity = &self.identity;
        let (revision, issued_ms) = match &self.card {
            Some((last, _, _)) => (last.revision, last.issued_ms),
            None => (0, now_unix_ms),
        };
        let mut card = Card {
            role: identity.role,
            epoch: identity.epoch,
            revision,
            issued_ms,
            region: identity.region.clone(),
            grant: identity.grant.clone(),
            agent: identity.agent.clone(),
            minor: PROTOCOL_MINOR,
            addresses: (addresses.iter().take(MAX_ADDRESSES))
                .map(ToString::to_string)
                .collect(),
            worker: worker.cloned(),
        };
        if let Some((last, sealed, digest)) = &self.card
            && *last == card
        {
            return Ok((sealed.clone(), *digest));
        }
        card.revision += 1;
        card.issued_ms = now_unix_ms;
        let sealed = Signed::seal(&identity.key, &identity.mesh, &card)?;
        let digest = Digest::of(sealed.as_bytes());
        self.card = Some((card, sealed.clone(), digest));
        Ok((sealed, digest))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MESH: MeshId = MeshId([9; 32]);

    pub(crate) fn composer() -> Composer {
        Composer::new(Identity {
            key: NodeKey::from_seed([1; 32]),
            mesh: MESH,
            role: Role::Gateway,
            region: Region::new("local").expect("valid"),
            grant: Some(vec![1, 2, 3]),
            agent: "tether/test".to_owned(),
            epoch: 77,
        })
    }

    pub(crate) fn told(state: NodeState) -> Told {
        Told {
            state,
            worker: None,
        }
    }

    fn address(port: u16) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([127, 0, 0, 1], port))]
    }

    #[test]
    fn beats_count_up_and_name_a_card_that_stays_the_same_while_nothing_changes() {
        let mut composer = composer();
        let serving = told(NodeState::Serving);
        let load = Load {
            in_flight: 3,
            ..Load::default()
        };
        let mut compose = |at_ms, port, n| {
            let sealed = composer.compose(&serving, &address(port), load, at_ms, [n; 16]);
            sealed.expect("inside limits")
        };
        let (first, second) = (compose(1_000, 1, 1), compose(6_000, 1, 2));
        assert_eq!(first.digest, second.digest);
        assert_eq!(first.card.as_bytes(), second.card.as_bytes());
        assert_eq!((first.order.seq, second.order.seq), (1, 2));
        let beat = second.beat.verify(&MESH).expect("rightly sealed");
        assert_eq!((beat.epoch, beat.issued_ms), (77, 6_000));
        assert_eq!((beat.card, beat.in_flight), (second.digest, 3));
        assert_eq!(Digest::of(second.card.as_bytes()), second.digest);
        let moved = compose(7_000, 2, 3);
        assert_ne!(moved.digest, second.digest);
        let (old, new) = (second.card.verify(&MESH), moved.card.verify(&MESH));
        let (old, new) = (old.expect("sealed"), new.expect("sealed"));
        assert_eq!((old.revision, new.revision), (1, 2));
        assert_eq!((old.issued_ms, new.issued_ms), (1_000, 7_000));
        assert_eq!(new.addresses, ["127.0.0.1:2"]);
    }

    #[test]
    fn the_goodbye_is_a_beat_that_says_so() {
        let sealed = composer()
            .compose(&told(NodeState::Leaving), &[], Load::default(), 1, [0; 16])
            .expect("inside limits");
        assert!(sealed.is_goodbye);
        let beat = sealed.beat.verify(&MESH).expect("rightly sealed");
        assert_eq!(beat.state, NodeState::Leaving);
    }

    #[test]
    fn what_others_would_refuse_is_not_said() {
        let mut wrong = told(NodeState::Serving);
        wrong.worker = Some(WorkerCard {
            gpu_class: "cpu".into(),
            vram_gb: 1,
            accelerators: 0,
            capacity: 1,
            models: Vec::new(),
            faults: Vec::new(),
            price_per_1k_micro: 0,
            tier: tether_wire::Tier::Untrusted,
            engine: String::new(),
        });
        // A gateway offers nothing.
        let sealed = composer().compose(&wrong, &[], Load::default(), 1, [0; 16]);
        assert!(sealed.is_err());
    }
}
