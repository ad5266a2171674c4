//! A topic as this node announces and sees it, for people.

use crate::rendezvous::{Announcement, Entry, Sighting};
use tether_wire::{NodeId, TopicKey};

/// A topic that this node announces or looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name, such as `control/eu`.
    pub name: String,
    /// Its key on the DHT.
    pub key: TopicKey,
    /// How its announcement stands, where it is announced.
    pub announced: Option<Announcement>,
    /// What the last look-up gave, where it was looked up.
    pub seen: Option<Sighting>,
    /// How many of [`Sighting::keys`] there is a link with.
    pub linked: usize,
}

impl TopicView {
    pub(crate) fn new(key: TopicKey, entry: Entry, is_linked: impl Fn(&NodeId) -> bool) -> Self {
        let keys = entry.seen.as_ref().map(|it| it.keys.as_slice());
        Self {
            linked: (keys.unwrap_or_default().iter())
                .filter(|id| is_linked(id))
                .count(),
            name: entry.name,
            key,
            announced: entry.announced,
            seen: entry.seen,
        }
    }
}
