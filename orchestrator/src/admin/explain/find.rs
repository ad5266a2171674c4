//! Which node is meant, and what presence knows of it.

use super::{LastBeat, Suspect};
use crate::fleet::{Refusal, Snapshot};
use std::sync::Arc;
use tether_presence::{Doubt, Now, Presence, Seen, Spread, Standing};
use tether_wire::{Digest, NodeId, Role, Tier};

/// Nodes that are named where more than one begins as asked, and where none does.
pub const MAX_NAMED: usize = 10;
/// Digits of an id.
const DIGITS: usize = 64;

/// The beginning of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Hex digits, one at least and as many as an id has at most.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_hex = text.bytes().all(|it| it.is_ascii_hexdigit());
        if !is_hex || text.is_empty() || text.len() > DIGITS {
            return Err(format!(
                "a worker's id is {DIGITS} hex digits, or as many of the first as no other has"
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    pub(in crate::admin) fn is_of(&self, id: &NodeId) -> bool {
        id.to_hex().starts_with(&self.0)
    }

    /// The lowest id that begins so, and the id itself where it is whole.
    fn lowest(&self) -> NodeId {
        let mut id = NodeId([0; DIGITS / 2]);
        for (at, digit) in self.0.chars().enumerate() {
            let digit = digit.to_digit(16).and_then(|it| u8::try_from(it).ok());
            let shift = if at % 2 == 0 { 4 } else { 0 };
            id.0[at / 2] |= digit.unwrap_or(0) << shift;
        }
        id
    }

    /// How alike an id is: digits in common at the beginning, then anywhere.
    fn likeness(&self, id: &NodeId) -> (usize, usize) {
        let hex = id.to_hex();
        let same = || self.0.bytes().zip(hex.bytes()).map(|(a, b)| a == b);
        (
            same().take_while(|is_same| *is_same).count(),
            same().filter(|is_same| *is_same).count(),
        )
    }

    /// Workers whose ids are like it: what was typed may be wrong in a digit.
    pub(in crate::admin) fn near(&self, fleet: &Snapshot) -> Vec<NodeId> {
        let mut near: Vec<_> = (fleet.workers())
            .map(|it| (self.likeness(&it.id()), it.id()))
            .filter(|((first, all), _)| *first >= 2 || (*all >= 3 && 4 * all >= 3 * self.0.len()))
            .collect();
        near.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        near.truncate(MAX_NAMED);
        near.into_iter().map(|(_, id)| id).collect()
    }
}

/// What presence knows of a node, taken out of it.
pub(in crate::admin) struct Known {
    pub(in crate::admin) id: NodeId,
    pub(super) standing: Standing,
    pub(super) age_ms: u64,
    pub(super) role: Option<Role>,
    pub(super) state: &'static str,
    pub(super) state_since_ms: u64,
    pub(super) suspect: Option<Suspect>,
    pub(super) beat: LastBeat,
    pub(super) sealed_beat: Arc<[u8]>,
    pub(super) sealed_card: Option<Arc<[u8]>>,
    pub(super) card_digest: Digest,
    pub(super) clone_seen_ms_ago: Option<u64>,
    pub(super) tier: Option<Tier>,
    pub(super) granted_until_ms: Option<u64>,
    pub(super) peers: Vec<NodeId>,
}

/// Who begins as asked.
pub(in crate::admin) enum Answer {
    One(Box<Known>),
    /// More than one: some of them.
    Many(Vec<NodeId>),
    /// None; whether it is the whole id of a key that was revoked.
    None {
        revoked: bool,
    },
}

/// Looks for the node in what presence knows.
pub(in crate::admin) fn find(prefix: &Prefix, spread: &Spread, now: Now) -> Answer {
    let presence: &Presence = spread.presence();
    let lowest = prefix.lowest();
    let found: Vec<Seen<'_>> = (presence.get(&lowest).into_iter())
        .chain(presence.after(&lowest))
        .take_while(|seen| prefix.is_of(&seen.node()))
        .take(MAX_NAMED)
        .collect();
    match found.as_slice() {
        [] => Answer::None {
            revoked: prefix.0.len() == DIGITS && presence.is_revoked(&lowest),
        },
        [one] => Answer::One(Box::new(Known::of(one, spread, now))),
        many => Answer::Many(many.iter().map(Seen::node).collect()),
    }
}

/// What is said where nothing is known of a node, and which nodes may have been meant.
pub(in crate::admin) fn unknown(
    prefix: &Prefix,
    revoked: bool,
    refusals: &[Refusal],
    fleet: &Snapshot,
) -> (String, Vec<NodeId>) {
    let Prefix(asked) = prefix;
    if revoked {
        return (format!("the key {asked} was revoked, for good"), Vec::new());
    }
    let mut meant = refusals.iter().filter(|it| prefix.is_of(&it.node));
    if let (Some(refusal), None) = (meant.next(), meant.next()) {
        let (node, reason) = (refusal.node, refusal.reason.as_str());
        let (means, count) = (refusal.means(), refusal.count);
        let error =
            format!("nothing that the node {node} says counts ({reason}, {count} times): {means}");
        return (error, vec![node]);
    }
    let error = format!("nothing is heard of a node {asked}, and was not in the last minutes");
    (error, prefix.near(fleet))
}

impl Known {
    fn of(seen: &Seen<'_>, spread: &Spread, now: Now) -> Self {
        let since = |mono_ms: u64| now.mono_ms.saturating_sub(mono_ms);
        let order = seen.order();
        Self {
            id: seen.node(),
            standing: seen.standing(),
            age_ms: since(seen.heard_mono_ms()),
            role: seen.role(),
            state: seen.state().as_str(),
            state_since_ms: seen.state_since_ms(),
            suspect: seen.doubt().map(|(why, mono_ms)| Suspect {
                for_ms: since(mono_ms),
                why: because(why),
            }),
            beat: LastBeat {
                epoch: order.epoch,
                epoch_since_ms: seen.epoch_since_ms(),
                seq: order.seq,
                issued_ms: seen.issued_ms(),
                clock_ahead_ms: seen.ahead_ms(),
            },
            sealed_beat: seen.sealed_beat().clone(),
            sealed_card: seen.sealed_card().cloned(),
            card_digest: seen.named_card(),
            clone_seen_ms_ago: seen.cloned_mono_ms().map(since),
            tier: seen.tier(),
            granted_until_ms: seen.granted_until_ms(),
            peers: spread.peers().collect(),
        }
    }
}

fn because(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Silent => "nothing was heard of it for longer than between two beats",
        Doubt::LinkLost => "its link broke, or could not be had",
        Doubt::Unresponsive => "its link went quiet, or it did not answer in time",
        Doubt::Peer => "another orchestrator doubts it",
    }
}
