//! Links: who holds each end, and since when it is sound.

use crate::host::Host;
use crate::queue::Us;
use std::sync::Arc;
use tether_wire::spread::Batch;
use tether_wire::{Beat, Card, Verified};

/// A link that was once made; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u32);

/// One of the two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Who dialled.
    Dialler,
    /// Who was dialled.
    Listener,
}

impl End {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }

    pub(crate) fn at(self) -> usize {
        self as usize
    }
}

/// A link of two processes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) hosts: [Host; 2],
    pub(crate) incarnations: [u32; 2],
    /// Which ends hold it to be up.
    pub(crate) up: [bool; 2],
    /// Which ends hear nothing on it.
    pub(crate) quiet: [bool; 2],
    /// One-way delay.
    pub(crate) delay: Us,
    /// When the last message for each end is there: streams keep their order.
    pub(crate) last: [Us; 2],
    /// Whether the dialler's card was pushed on it since it was chosen.
    pub(crate) is_carded: bool,
    /// Since when its path is whole.
    pub(crate) sound_since: Us,
    /// Since when its path is cut.
    pub(crate) cut_since: Option<Us>,
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        self.up[0] && self.up[1]
    }

    /// The end that this host holds.
    pub(crate) fn end_of(&self, host: Host) -> End {
        if self.hosts[0] == host {
            End::Dialler
        } else {
            End::Listener
        }
    }

    /// Whether it was up with its path whole for all of this time.
    pub(crate) fn is_sound_for(&self, now: Us, time: Us) -> bool {
        self.is_up() && self.cut_since.is_none() && now.saturating_sub(self.sound_since) >= time
    }
}

/// What travels on a link.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A node's beat to an orchestrator.
    Push {
        beat: Arc<Verified<Beat>>,
        card: Option<Arc<Verified<Card>>>,
    },
    /// The orchestrator's answer: it wants the card.
    WantsCard,
    /// Between orchestrators.
    Batch(Box<Batch>),
    /// The link is closed on purpose.
    Close,
}

/// Bytes of CBOR around the parts of messages, on average; the sealed parts are counted exactly.
const PUSH_OVERHEAD: usize = 24;
const BEAT_OVERHEAD: usize = 40;
const CARD_OVERHEAD: usize = 4;
const SUSPICION_BYTES: usize = 62;
const HOLDING_BYTES: usize = 104;
const HASH_BYTES: usize = 9;
const ID_BYTES: usize = 34;

impl Message {
    /// Its size on the wire.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Push { beat, card } => {
                let card = card.as_ref().map_or(0, |card| card.bytes().len());
                PUSH_OVERHEAD + beat.bytes().len() + card
            }
            Self::WantsCard => PUSH_OVERHEAD,
            Self::Close => 0,
            Self::Batch(batch) => {
                let sealed = |all: &[serde_bytes::ByteBuf]| -> usize {
                    all.iter().map(|it| it.len() + CARD_OVERHEAD).sum()
                };
                let beats: usize = (batch.beats.iter())
                    .map(|it| it.beat.len() + BEAT_OVERHEAD)
                    .sum();
                PUSH_OVERHEAD
                    + batch.linked.as_ref().map_or(0, Vec::len) * ID_BYTES
                    + sealed(&batch.cards)
                    + beats
                    + batch.suspicions.len() * SUSPICION_BYTES
                    + (batch.summary.len() + batch.control_summary.len()) * HASH_BYTES
                    + batch.holdings.len() * HOLDING_BYTES
                    + batch.wants.len() * ID_BYTES
                    + sealed(&batch.controls)
            }
        }
    }
}
