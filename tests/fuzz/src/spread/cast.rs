//! Who plays: a few nodes, their cards, and the beats that they could have signed. Signatures are
//! real, and remembered, so that a story costs no arithmetic that an earlier one has done.

use crate::choices::Choices;
use crate::known::{NOW_MS, members, mesh, operator};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tether_presence::admission::{admit, reason};
use tether_presence::{AdmittedCard, Rejected, Signatures, Verifier};
use tether_wire::beat::NodeState;
use tether_wire::card::WorkerCard;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{
    Beat, Card, Digest, Grant, NodeId, NodeKey, Region, Role, Signed, Tier, Verified,
};

/// Nodes that play: the first four are workers, then two gateways and four orchestrators.
pub(crate) const NODES: u8 = 10;
/// Cards that each of them has made.
const REVISIONS: u8 = 3;
/// How much is remembered before it is forgotten all at once.
const MAX_REMEMBERED: usize = 20_000;
/// The grants of gateways and orchestrators end so long after the beginning of the story.
const GRANTED_MS: u64 = 45_000;

pub(crate) fn open_mesh() -> Mesh {
    mesh(Access::Open)
}

/// The rules of the mesh, with nobody revoked.
pub(crate) fn open_rules() -> Signatures {
    let members = Arc::new(members(Access::Open));
    Signatures { members }
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([100 + n; 32])
}

struct Player {
    key: NodeKey,
    id: NodeId,
    cards: Vec<Signed<Card>>,
}

fn role(n: u8) -> Role {
    match n {
        0..4 => Role::Worker,
        4..6 => Role::Gateway,
        _ => Role::Orchestrator,
    }
}

fn card(n: u8, revision: u8) -> Card {
    let worker = (role(n) == Role::Worker).then(|| WorkerCard {
        gpu_class: "cpu".into(),
        vram_gb: 8,
        accelerators: 1,
        capacity: 4,
        models: Vec::new(),
        faults: Vec::new(),
        price_per_1k_micro: 0,
        tier: Tier::Trusted,
        engine: "echo".into(),
    });
    let region = Region::new("local").expect("valid");
    let grant = Grant {
        subject: key(n).id(),
        role: role(n),
        region: None,
        tier: Tier::Trusted,
        not_before_ms: NOW_MS - 1_000,
        expires_ms: NOW_MS + GRANTED_MS,
        serial: u64::from(n),
        issuer: None,
        consent: None,
        invite: None,
    };
    let grant = (role(n) != Role::Worker).then(|| {
        let sealed = Signed::seal(&operator(), &open_mesh().id, &grant);
        sealed.expect("inside its limits").as_bytes().to_vec()
    });
    Card {
        role: role(n),
        epoch: 1,
        revision: u64::from(revision),
        issued_ms: NOW_MS,
        region,
        grant,
        agent: String::new(),
        minor: 0,
        addresses: Vec::new(),
        worker,
    }
}

fn players() -> &'static [Player] {
    static PLAYERS: OnceLock<Vec<Player>> = OnceLock::new();
    PLAYERS.get_or_init(|| {
        let player = |n| {
            let seal = |revision| Signed::seal(&key(n), &open_mesh().id, &card(n, revision));
            Player {
                key: key(n),
                id: key(n).id(),
                cards: (0..REVISIONS)
                    .map(|it| seal(it).expect("inside its limits"))
                    .collect(),
            }
        };
        (0..NODES).map(player).collect()
    })
}

pub(crate) fn id(n: u8) -> NodeId {
    players()[usize::from(n % NODES)].id
}

/// A sealed card of a node.
pub(crate) fn sealed_card(n: u8, revision: u8) -> &'static Signed<Card> {
    &players()[usize::from(n % NODES)].cards[usize::from(revision % REVISIONS)]
}

/// What tells one beat from another.
type BeatKey = (u8, u64, u64, u64, u8, u8);

thread_local! {
    static BEATS: RefCell<HashMap<BeatKey, Signed<Beat>>> = RefCell::default();
    static VERIFIED: RefCell<HashMap<Digest, Result<Verified<Beat>, Rejected>>> = RefCell::default();
    static CARDS: RefCell<HashMap<Digest, Result<Verified<Card>, Rejected>>> = RefCell::default();
}

fn remember<K: std::hash::Hash + Eq, V: Clone>(
    map: &RefCell<HashMap<K, V>>,
    key: K,
    make: impl FnOnce() -> V,
) -> V {
    if let Some(known) = map.borrow().get(&key) {
        return known.clone();
    }
    let made = make();
    let mut map = map.borrow_mut();
    if map.len() >= MAX_REMEMBERED {
        map.clear();
    }
    map.insert(key, made.clone());
    made
}

/// A beat that its node has sealed: any order, date, state and card.
pub(crate) fn sealed_beat(n: u8, choices: &mut Choices<'_>, unix_ms: u64) -> (Beat, Signed<Beat>) {
    const AGES: [i64; 12] = [
        0, -500, 1_000, 4_500, 5_500, 20_000, -4_500, -5_500, -14_500, -20_500, -40_000, -90_000,
    ];
    const STATES: [NodeState; 5] = [
        NodeState::Serving,
        NodeState::Starting,
        NodeState::Draining,
        NodeState::Leaving,
        NodeState::Unknown,
    ];
    let epoch = choices.of(&[1, 2, 3, 0, u64::MAX - 1]);
    let seq = match choices.byte() {
        255 => u64::MAX,
        few => u64::from(few % 32),
    };
    let issued_ms = match choices.byte() {
        254 => u64::MAX,
        255 => 0,
        age => (unix_ms / 500 * 500).saturating_add_signed(AGES[usize::from(age) % AGES.len()]),
    };
    let (state, revision) = (choices.byte() % 5, choices.byte() % REVISIONS);
    let beat = Beat {
        epoch,
        seq,
        nonce: [7; 16],
        issued_ms,
        state: STATES[usize::from(state)],
        card: Digest::of(sealed_card(n, revision).as_bytes()),
        queue_depth: 0,
        in_flight: 0,
        tokens_per_s: 0.0,
        first_token_ms: 0,
        vitals: None,
    };
    let known = (n, epoch, seq, issued_ms, state, revision);
    let sealed = BEATS.with(|beats| {
        remember(beats, known, || {
            let key = &players()[usize::from(n % NODES)].key;
            Signed::seal(key, &open_mesh().id, &beat).expect("inside its limits")
        })
    });
    (beat, sealed)
}

/// The rules of the mesh, which remember what they have verified.
pub(crate) struct Remembering;

impl Verifier for Remembering {
    fn beat(&self, sealed: &Signed<Beat>) -> Result<Verified<Beat>, Rejected> {
        let digest = Digest::of(sealed.as_bytes());
        let verify = || {
            sealed
                .verify(&open_mesh().id)
                .map_err(|error| reason(&error))
        };
        VERIFIED.with(|known| remember(known, digest, verify))
    }

    fn card(&self, sealed: &Signed<Card>, now_unix_ms: u64) -> Result<AdmittedCard, Rejected> {
        admit(&members(Access::Open), verified_card(sealed)?, now_unix_ms)
    }
}

/// A card, where its node has signed it.
pub(crate) fn verified_card(sealed: &Signed<Card>) -> Result<Verified<Card>, Rejected> {
    let digest = Digest::of(sealed.as_bytes());
    let verify = || {
        let verified = sealed.verify(&open_mesh().id);
        verified.map_err(|error| reason(&error))
    };
    CARDS.with(|known| remember(known, digest, verify))
}
