//! The machine of our orchestrators: [`Spread`] and the checks before it, as an orchestrator runs
//! them. The only module that knows its interface.

use crate::machine::{How, Input, Machine, Output};
use crate::verifier::Verifier;
use std::sync::Arc;
use tether_presence::check;
use tether_presence::{Effect, Event, Gone, Now, Settings, Spread, spread};
use tether_wire::spread::{Batch, Push};
use tether_wire::{Beat, Card, MeshId, NodeId, Verified};

/// An orchestrator.
pub struct Tether {
    spread: Spread,
    said: Vec<spread::Output>,
}

impl Machine for Tether {
    fn start(own: NodeId, _: MeshId, now: Now, seed: u64) -> Self {
        Self {
            spread: Spread::new(own, Settings::default(), now, seed),
            said: Vec::new(),
        }
    }

    fn handle(&mut self, input: Input, now: Now, verifier: &Verifier, outputs: &mut Vec<Output>) {
        match input {
            Input::PeerUp(peer) => {
                self.spread(spread::Input::PeerUp { peer, near: true }, now, outputs);
            }
            Input::PeerDown(peer) => self.spread(spread::Input::PeerDown(peer), now, outputs),
            Input::Batch { from, batch } => self.batch(from, *batch, now, verifier, outputs),
            Input::Pushed { beat, card } => self.pushed(&beat, card, now, verifier, outputs),
            Input::LinkLost(node) => {
                self.spread(spread::Input::Own(Event::LinkLost(node)), now, outputs);
            }
            Input::LinkClosed(node) => {
                self.spread(spread::Input::Own(Event::LinkClosed(node)), now, outputs);
            }
            Input::LinkQuiet(node) => {
                self.spread(spread::Input::Own(Event::LinkQuiet(node)), now, outputs);
            }
            Input::LinkLively(node) => {
                self.spread(spread::Input::Own(Event::LinkLively(node)), now, outputs);
            }
            Input::Revoke(node) => self.control(&node.0, now, outputs),
            Input::Tick => self.spread(spread::Input::Tick, now, outputs),
        }
    }

    fn shows(&self, node: &NodeId) -> bool {
        (self.spread.presence().get(node))
            .is_some_and(|seen| seen.is_live() && seen.role().is_some())
    }
}

impl Tether {
    fn pushed(
        &mut self,
        beat: &Verified<Beat>,
        card: Option<Arc<Verified<Card>>>,
        now: Now,
        verifier: &Verifier,
        outputs: &mut Vec<Output>,
    ) {
        let push = Push {
            beat: beat.bytes().to_vec(),
            card: card.map(|card| card.bytes().to_vec()),
        };
        let peer = beat.signer();
        match check::push(push, peer, verifier, &self.spread, now.unix_ms) {
            Ok((event, wrong)) => {
                if let Some(reason) = wrong {
                    outputs.push(Output::Rejected(reason.as_str()));
                }
                self.spread(spread::Input::Own(event), now, outputs);
            }
            Err(reason) => outputs.push(Output::Rejected(reason.as_str())),
        }
    }

    fn batch(
        &mut self,
        from: NodeId,
        mut batch: Batch,
        now: Now,
        verifier: &Verifier,
        outputs: &mut Vec<Output>,
    ) {
        for sealed in std::mem::take(&mut batch.controls) {
            self.control(&sealed, now, outputs);
        }
        let batch = check::batch(batch, verifier, &self.spread, now.unix_ms);
        self.spread(spread::Input::Batch { from, batch }, now, outputs);
    }

    fn spread(&mut self, input: spread::Input, now: Now, outputs: &mut Vec<Output>) {
        let mut said = std::mem::take(&mut self.said);
        self.spread.handle(input, now, &mut said);
        for output in said.drain(..) {
            match output {
                spread::Output::Send { to, batch } => {
                    outputs.push(Output::Send {
                        to,
                        batch: Box::new(batch),
                    });
                    // A stream takes some megabytes at once, so what is sent is written.
                    self.spread
                        .handle(spread::Input::Written(to), now, &mut Vec::new());
                }
                spread::Output::Effect(effect) => outputs.extend(told(effect)),
            }
        }
        self.said = said;
    }

    /// Takes and passes on a control message: here, the id of a key that is revoked. What real ones
    /// look like and who may sign them is decided elsewhere; presence only carries them.
    fn control(&mut self, sealed: &[u8], now: Now, outputs: &mut Vec<Output>) {
        let Ok(key) = <[u8; 32]>::try_from(sealed) else {
            return;
        };
        let (id, sealed) = (tether_wire::Digest(key), sealed.to_vec());
        self.spread(
            spread::Input::Control {
                id,
                sealed,
                urgent: true,
            },
            now,
            outputs,
        );
        let revoked = Event::Revoked(NodeId(key));
        self.spread(spread::Input::Own(revoked), now, outputs);
    }
}

fn told(effect: Effect) -> Option<Output> {
    Some(match effect {
        Effect::Beat { beat, carded, .. } => Output::Live {
            node: beat.signer(),
            carded,
        },
        Effect::Carded(card) => Output::Carded(card.node()),
        Effect::Suspect(node) => Output::Suspect(node),
        Effect::Well(node) => Output::Well(node),
        Effect::Gone { node, how } => Output::Gone(
            node,
            match how {
                Gone::Departed => How::Departed,
                Gone::Expired => How::Expired,
                Gone::Revoked | Gone::Ungranted => How::Refused,
            },
        ),
        Effect::WantCard { node, .. } => Output::WantCard(node),
        Effect::Clone { node, .. } => Output::Clone(node),
        Effect::Rejected { reason, .. } => Output::Rejected(reason.as_str()),
    })
}
