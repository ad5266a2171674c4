//! Presence as it is often built, and as it must not be: any beat that is passed on counts as a sign
//! of life from the moment at which it arrives, and who went is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use tether_presence::Now;
use tether_sim::machine::{How, Input, Machine, Output};
use tether_sim::verifier::Verifier;
use tether_wire::beat::{EXPIRY_MS, NodeState};
use tether_wire::spread::{Batch, RelayedBeat};
use tether_wire::{Beat, MeshId, NodeId, Signed, Verified};

/// How often everything that is shown is told to all peers.
const GOSSIP_MS: u64 = 2_000;

pub(crate) struct Naive {
    nodes: BTreeMap<NodeId, (Verified<Beat>, u64)>,
    peers: BTreeSet<NodeId>,
    gossip_at_ms: u64,
}

impl Machine for Naive {
    fn start(_: NodeId, _: MeshId, now: Now, _: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            peers: BTreeSet::new(),
            gossip_at_ms: now.mono_ms,
        }
    }

    fn handle(&mut self, input: Input, now: Now, verifier: &Verifier, outputs: &mut Vec<Output>) {
        match input {
            Input::PeerUp(peer) => {
                self.peers.insert(peer);
            }
            Input::PeerDown(peer) => {
                self.peers.remove(&peer);
            }
            Input::Pushed { beat, .. } => self.hear(&beat, now, outputs),
            Input::Batch { batch, .. } => {
                for relayed in batch.beats {
                    let sealed = Signed::from_bytes(relayed.beat);
                    if let Some(beat) = verifier.check_beat(&sealed) {
                        self.hear(&beat, now, outputs);
                    }
                }
            }
            Input::LinkLost(_)
            | Input::LinkClosed(_)
            | Input::LinkQuiet(_)
            | Input::LinkLively(_)
            | Input::Revoke(_) => {}
            Input::Tick => self.tick(now, outputs),
        }
    }

    fn shows(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }
}

impl Naive {
    fn hear(&mut self, beat: &Verified<Beat>, now: Now, outputs: &mut Vec<Output>) {
        let node = beat.signer();
        if beat.state == NodeState::Leaving {
            if self.nodes.remove(&node).is_some() {
                outputs.push(Output::Gone(node, How::Departed));
            }
            return;
        }
        if (self.nodes.get(&node)).is_some_and(|(held, _)| held.order() > beat.order()) {
            return;
        }
        self.nodes.insert(node, (beat.clone(), now.mono_ms));
        outputs.push(Output::Live { node, carded: true });
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let silent = |heard: u64| now.mono_ms.saturating_sub(heard) >= EXPIRY_MS;
        let expired: Vec<NodeId> = (self.nodes.iter())
            .filter(|(_, (_, heard))| silent(*heard))
            .map(|(node, _)| *node)
            .collect();
        for node in expired {
            self.nodes.remove(&node);
            outputs.push(Output::Gone(node, How::Expired));
        }
        if now.mono_ms < self.gossip_at_ms {
            return;
        }
        self.gossip_at_ms = now.mono_ms + GOSSIP_MS;
        for to in &self.peers {
            let beats = (self.nodes.values()).map(|(beat, _)| RelayedBeat {
                epoch: beat.epoch,
                seq: beat.seq,
                ahead_ms: 0,
                beat: beat.bytes().to_vec(),
            });
            let batch = Batch {
                beats: beats.collect(),
                ..Batch::default()
            };
            outputs.push(Output::Send {
                to: *to,
                batch: Box::new(batch),
            });
        }
    }
}
