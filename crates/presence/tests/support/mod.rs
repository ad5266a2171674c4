//! Keys, beats and cards, and one machine with a clock that is moved by hand.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use tether_presence::{
    AdmittedCard, Effect, Event, Gone, Now, Origin, Presence, Rejected, Seen, Settings, Signatures,
};
use tether_wire::beat::NodeState;
use tether_wire::card::WorkerCard;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{
    Beat, Card, Digest, Membership, MeshId, NodeId, NodeKey, Region, Role, Signed, Tier, Verified,
};

/// Unix milliseconds at which every story begins.
pub(crate) const START: u64 = 1_800_000_000_000;
/// The monotonic clock then.
pub(crate) const BOOT: u64 = 777_000;
/// A beat every five seconds.
pub(crate) const T: u64 = tether_wire::beat::BEAT_INTERVAL_MS;

pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n; 32])
}

pub(crate) fn id(n: u8) -> NodeId {
    key(n).id()
}

pub(crate) fn mesh() -> Mesh {
    Mesh {
        id: MeshId(id(255).0),
        recovery: None,
        access: Access::Open,
    }
}

/// The rules of the mesh, with nothing revoked.
pub(crate) fn signatures() -> Signatures {
    let members = Arc::new(Membership::new(mesh()));
    Signatures { members }
}

pub(crate) fn card_in(n: u8, revision: u64, role: Role) -> Card {
    let worker = (role == Role::Worker).then(|| WorkerCard {
        gpu_class: "cpu".into(),
        vram_gb: 8,
        accelerators: 1,
        capacity: 4,
        models: Vec::new(),
        faults: Vec::new(),
        price_per_1k_micro: u64::from(n),
        tier: Tier::Trusted,
        engine: "echo".into(),
    });
    Card {
        role,
        epoch: 1,
        revision,
        issued_ms: START,
        region: Region::new("eu").expect("valid"),
        grant: None,
        agent: String::new(),
        minor: 0,
        addresses: Vec::new(),
        worker,
    }
}

pub(crate) fn sealed_card(n: u8, revision: u64, role: Role) -> Signed<Card> {
    Signed::seal(&key(n), &mesh().id, &card_in(n, revision, role)).expect("inside its limits")
}

/// The card of a worker without a grant, as an open mesh admits it.
pub(crate) fn card(n: u8, revision: u64) -> Box<AdmittedCard> {
    role_card(n, revision, Role::Worker)
}

pub(crate) fn role_card(n: u8, revision: u64, role: Role) -> Box<AdmittedCard> {
    let card = sealed_card(n, revision, role)
        .verify(&mesh().id)
        .expect("valid");
    Box::new(AdmittedCard::new(card, Tier::Untrusted, None))
}

/// A beat of node `n`, made `at` milliseconds after the start, that names its first card.
pub(crate) fn plain(n: u8, epoch: u64, seq: u64, at: i64) -> Beat {
    Beat {
        epoch,
        seq,
        nonce: [7; 16],
        issued_ms: START.saturating_add_signed(at),
        state: NodeState::Serving,
        card: Digest::of(sealed_card(n, 1, Role::Worker).as_bytes()),
        queue_depth: 0,
        in_flight: 0,
        tokens_per_s: 0.0,
        first_token_ms: 0,
        vitals: None,
    }
}

pub(crate) fn seal(n: u8, beat: &Beat) -> Verified<Beat> {
    let signed = Signed::seal(&key(n), &mesh().id, beat).expect("inside its limits");
    signed.verify(&mesh().id).expect("valid")
}

pub(crate) fn beat(n: u8, epoch: u64, seq: u64, at: i64) -> Verified<Beat> {
    seal(n, &plain(n, epoch, seq, at))
}

pub(crate) fn goodbye(n: u8, epoch: u64, seq: u64, at: i64) -> Verified<Beat> {
    let state = NodeState::Leaving;
    let leaving = Beat {
        state,
        ..plain(n, epoch, seq, at)
    };
    seal(n, &leaving)
}

pub(crate) fn relayed(ahead_ms: i32) -> Origin {
    Origin::Relayed { ahead_ms }
}

pub(crate) fn at(ms: u64) -> Now {
    Now {
        unix_ms: START + ms,
        mono_ms: BOOT + ms,
    }
}

/// One machine and its clock.
pub(crate) struct Machine {
    pub(crate) presence: Presence,
    pub(crate) now: Now,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self {
            presence: Presence::new(settings, at(0)),
            now: at(0),
        }
    }

    pub(crate) fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.presence.handle(event, self.now, &mut effects);
        effects
    }

    /// Goes to this many milliseconds after the start, looking at what is due on the way.
    pub(crate) fn go_to(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let end = at(ms).mono_ms;
        while self.now.mono_ms < end {
            let step = (end - self.now.mono_ms).min(50);
            self.now.mono_ms += step;
            self.now.unix_ms += step;
            effects.extend(self.handle(Event::Tick));
        }
        effects
    }

    pub(crate) fn direct(&mut self, beat: &Verified<Beat>) -> Vec<Effect> {
        self.from(beat, Origin::Direct)
    }

    pub(crate) fn relayed(&mut self, beat: &Verified<Beat>) -> Vec<Effect> {
        self.from(beat, relayed(0))
    }

    pub(crate) fn from(&mut self, beat: &Verified<Beat>, origin: Origin) -> Vec<Effect> {
        let (beat, card) = (beat.clone(), None);
        self.handle(Event::Beat { beat, card, origin })
    }

    pub(crate) fn with_card(
        &mut self,
        beat: &Verified<Beat>,
        card: Box<AdmittedCard>,
    ) -> Vec<Effect> {
        let (beat, card, origin) = (beat.clone(), Some(card), Origin::Direct);
        self.handle(Event::Beat { beat, card, origin })
    }

    pub(crate) fn seen(&self, n: u8) -> Option<Seen<'_>> {
        self.presence.get(&id(n))
    }

    pub(crate) fn is_live(&self, n: u8) -> bool {
        self.seen(n).is_some_and(|seen| seen.is_live())
    }

    pub(crate) fn is_suspect(&self, n: u8) -> bool {
        self.seen(n).is_some_and(|seen| seen.is_suspect())
    }
}

/// The first reason against something.
pub(crate) fn rejected(effects: &[Effect]) -> Option<Rejected> {
    effects.iter().find_map(|effect| match effect {
        Effect::Rejected { reason, .. } => Some(*reason),
        _ => None,
    })
}

pub(crate) fn gone(effects: &[Effect]) -> Option<Gone> {
    effects.iter().find_map(|effect| match effect {
        Effect::Gone { how, .. } => Some(*how),
        _ => None,
    })
}

pub(crate) fn refreshed(effects: &[Effect]) -> bool {
    (effects.iter()).any(|effect| matches!(effect, Effect::Beat { .. }))
}

pub(crate) fn suspected(effects: &[Effect]) -> bool {
    (effects.iter()).any(|effect| matches!(effect, Effect::Suspect(_)))
}

pub(crate) fn well(effects: &[Effect]) -> bool {
    (effects.iter()).any(|effect| matches!(effect, Effect::Well(_)))
}
