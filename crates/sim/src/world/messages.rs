//! What travels on links, and what it does when it is there.

use super::{Event, TICK, World};
use crate::host::{Host, Key};
use crate::link::{End, LinkId, Message};
use crate::machine::{Input, Machine, Output};
use crate::outcome::Violation;
use crate::queue::MS;
use tether_wire::{NodeId, Signed};

impl<M: Machine> World<M> {
    /// Sends a message from one end of a link to the other.
    pub(super) fn send(&mut self, id: LinkId, from: End, message: Message) {
        let now = self.now();
        let bytes = message.bytes();
        let link = &self.links[id.0 as usize];
        let class = usize::from(self.is_brain(link.hosts[from.at()]));
        self.sent[class].messages += 1;
        self.sent[class].bytes += bytes as u64;
        if !matches!(message, Message::Close) && self.network.is_lost() {
            return;
        }
        let end = from.other();
        let link = &mut self.links[id.0 as usize];
        let mut at = now + self.network.draw_delay(link.delay, bytes);
        if self.network.is_ordered() || matches!(message, Message::Close) {
            at = at.max(link.last[end.at()]);
        }
        link.last[end.at()] = link.last[end.at()].max(at);
        if self.network.is_doubled() {
            let later = at + self.network.draw_delay(link.delay, bytes);
            let message = message.clone();
            self.queue.plan(
                later,
                Event::Deliver {
                    link: id,
                    end,
                    message,
                },
            );
        }
        self.queue.plan(
            at,
            Event::Deliver {
                link: id,
                end,
                message,
            },
        );
    }

    pub(super) fn deliver(&mut self, id: LinkId, end: End, message: Message) {
        let link = &self.links[id.0 as usize];
        let host = link.hosts[end.at()];
        if !link.up[end.at()] || !self.runs(host, link.incarnations[end.at()]) {
            return;
        }
        if link.cut_since.is_some() {
            let sender = link.hosts[end.other().at()];
            if !self.runs(sender, link.incarnations[end.other().at()]) {
                return;
            }
            // It is sent again until the path heals or the link is given up.
            let at = self.now() + self.network.draw_retransmission();
            self.queue.plan(
                at,
                Event::Deliver {
                    link: id,
                    end,
                    message,
                },
            );
            return;
        }
        self.trace
            .mix(u64::from(id.0) << 2 | u64::from(end == End::Listener));
        let from = link.hosts[end.other().at()];
        match message {
            Message::Push { beat, card } => {
                self.record(host, |recorder, random| {
                    recorder.record(&beat, random);
                    if let Some(card) = &card {
                        recorder.record_card(card.signer(), card.bytes());
                    }
                });
                self.feed(host, Input::Pushed { beat, card }, Some((id, end)));
            }
            Message::WantsCard => {
                self.links[id.0 as usize].is_carded = false;
                self.wish_for_beat(host);
            }
            Message::Batch(batch) => {
                if self.has_recorder(host) {
                    for relayed in &batch.beats {
                        if let Some(beat) = self
                            .verifier
                            .check_beat(&Signed::from_bytes(relayed.beat.as_slice()))
                        {
                            self.record(host, |recorder, random| recorder.record(&beat, random));
                        }
                    }
                }
                let from = self.host(from).id;
                self.feed(host, Input::Batch { from, batch }, None);
            }
            Message::Close => self.lose(id, end, false),
        }
    }

    fn has_recorder(&self, host: Host) -> bool {
        let brain = (self.host(host).process.as_ref()).and_then(|it| it.brain.as_ref());
        brain.is_some_and(|brain| brain.recorder.is_some())
    }

    fn record(
        &mut self,
        host: Host,
        record: impl FnOnce(&mut crate::recorder::Recorder, &mut crate::random::Random),
    ) {
        let process = self.hosts[host.at()].process.as_mut();
        let recorder = process
            .and_then(|it| it.brain.as_mut())
            .and_then(|brain| brain.recorder.as_mut());
        if let Some(recorder) = recorder {
            record(recorder, &mut self.attack);
        }
    }

    pub(super) fn tick(&mut self, host: Host) {
        let incarnation = self.host(host).incarnation;
        self.feed(host, Input::Tick, None);
        let at = self.now() + TICK;
        self.queue.plan(at, Event::Tick { host, incarnation });
    }

    /// Gives something to an orchestrator, and does what it says.
    pub(super) fn feed(&mut self, host: Host, input: Input, over: Option<(LinkId, End)>) {
        let now = self.clocks(host);
        let mut outputs = std::mem::take(&mut self.outputs);
        let process = self.hosts[host.at()].process.as_mut();
        if let Some(brain) = process.and_then(|it| it.brain.as_mut()) {
            brain
                .machine
                .handle(input, now, &self.verifier, &mut outputs);
        }
        for output in outputs.drain(..) {
            self.heed(host, output, over);
        }
        self.outputs = outputs;
    }

    fn heed(&mut self, host: Host, output: Output, over: Option<(LinkId, End)>) {
        let now = self.now();
        match output {
            Output::Send { to, batch } => {
                let to = self.host_of.get(&to).copied();
                let link = to.and_then(|to| self.process(host)?.links.get(&to).copied());
                if let Some(link) = link {
                    let end = self.links[link.0 as usize].end_of(host);
                    self.send(link, end, Message::Batch(batch));
                }
            }
            Output::Live { node, carded } => self.lives(host, node, carded),
            Output::Carded(node) => {
                if let Some((_, key)) = self.key_of(&node) {
                    self.judge.carded(host, key, now);
                }
            }
            Output::Suspect(node) => self.suspects(host, node, true),
            Output::Well(node) => self.suspects(host, node, false),
            Output::Gone(node, how) => self.goes(host, node, how),
            Output::WantCard(_) => {
                if let Some((link, end)) = over {
                    self.send(link, end, Message::WantsCard);
                }
            }
            Output::Clone(node) => {
                if let Some((_, key)) = self.key_of(&node) {
                    self.judge.cloned(host, key);
                }
            }
            Output::Rejected(reason) => {
                *self.judge.found.rejected.entry(reason).or_insert(0) += 1;
            }
        }
    }

    fn lives(&mut self, host: Host, node: NodeId, carded: bool) {
        let now = self.now();
        let Some((subject, key)) = self.key_of(&node) else {
            return;
        };
        let was_shown = self.judge.shows(host, key);
        let is_ghost = self.judge.live(host, key, carded, now);
        if was_shown != self.judge.shows(host, key) {
            self.mark(host, key, 1);
            self.trace.line(now, subject, Some(host), || {
                format!("it is live (card: {carded})")
            });
        }
        if is_ghost {
            let dead_for = (now - self.judge.changed(key)) / MS;
            let what = format!("a ghost was made: dead for {dead_for} ms, and made live");
            self.violate(Some(host), key, what);
        }
    }

    fn suspects(&mut self, host: Host, node: NodeId, suspect: bool) {
        let now = self.now();
        let Some((subject, key)) = self.key_of(&node) else {
            return;
        };
        self.mark(host, key, 2 + u64::from(suspect));
        self.judge.suspect(host, key, suspect, now);
        self.trace.line(now, subject, Some(host), || {
            if suspect {
                "it is suspect"
            } else {
                "it is well"
            }
            .to_owned()
        });
    }

    /// The host of a key that is told by its id, the first one of a clone.
    pub(super) fn key_of(&self, node: &NodeId) -> Option<(Host, Key)> {
        let host = *self.host_of.get(node)?;
        Some((host, self.host(host).key))
    }

    /// A change of a view takes part in the hash of the run.
    pub(super) fn mark(&mut self, host: Host, key: Key, what: u64) {
        let word = u64::from(host.0) << 36 | u64::from(key.0) << 4 | what;
        self.trace.mix(word);
    }

    pub(super) fn violate(&mut self, viewer: Option<Host>, key: Key, what: String) {
        let subject = self.holders[key.at()].first().copied();
        self.judge.found.violate(Violation {
            at_ms: self.queue.now() / MS,
            viewer: viewer.map(|host| host.0),
            subject: subject.map(|host| host.0),
            what,
        });
    }
}
