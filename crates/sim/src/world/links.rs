//! Dials, links that come up, break and are noticed to.

use super::{Event, World};
use crate::host::{Host, Kind};
use crate::link::{End, Link, LinkId, Message};
use crate::machine::{Input, Machine};
use crate::network::DIAL_TRIES_MS;
use crate::queue::{MS, Us};
use tether_presence::plan::FIRST_REDIAL_MS;
use tether_wire::NodeId;

impl<M: Machine> World<M> {
    pub(super) fn look_up_if_due(&mut self, host: Host) {
        let now = self.now();
        let incarnation = self.host(host).incarnation;
        let is_due = self
            .process(host)
            .is_some_and(|it| it.look_up_at == now && !it.is_leaving);
        if is_due {
            let delay = self.oracle.draw_delay(&mut self.timers);
            self.queue
                .plan(now + delay, Event::Found { host, incarnation });
        }
    }

    pub(super) fn found(&mut self, host: Host) {
        let found = self.oracle.find(self.now(), &mut self.timers);
        let found: Vec<NodeId> = found.into_iter().map(|host| self.host(host).id).collect();
        let process = self.hosts[host.at()].process.as_mut();
        if let Some(process) = process {
            let wait = process.finder.found(&found, &mut self.timers);
            self.plan_look_up(host, wait);
        }
        self.keep(host);
    }

    fn plan_look_up(&mut self, host: Host, wait: Us) {
        let at = self.now() + wait;
        if let Some(process) = self.process(host) {
            process.look_up_at = at;
            self.queue.plan(at, Event::LookUp(host));
        }
    }

    pub(super) fn keep_if_due(&mut self, host: Host) {
        let now = self.now();
        if self.process(host).is_some_and(|it| it.keep_at == now) {
            self.keep(host);
        }
    }

    /// What a node does whenever a look-up, a dial or a link changed something.
    fn keep(&mut self, host: Host) {
        let now = self.now();
        let incarnation = self.host(host).incarnation;
        let Some(process) = self.hosts[host.at()].process.as_ref() else {
            return;
        };
        if process.is_leaving {
            return;
        }
        let links: Vec<(NodeId, bool)> = (process.links.iter())
            .filter(|(peer, _)| self.is_brain(**peer))
            .map(|(peer, link)| {
                let link = &self.links[link.0 as usize];
                (self.host(*peer).id, link.quiet[link.end_of(host).at()])
            })
            .collect();
        let Some(process) = self.hosts[host.at()].process.as_mut() else {
            return;
        };
        let plan = process.finder.look(&links, now, &mut self.timers);
        if plan.is_alone {
            self.plan_look_up(host, FIRST_REDIAL_MS * MS);
        }
        if let Some(at) = plan.again_at
            && let Some(process) = self.process(host)
        {
            // Planned in whole milliseconds, and never for now: what is due now was just done.
            process.keep_at = at.max(now + MS);
            let at = process.keep_at;
            self.queue.plan(at, Event::Keep(host));
        }
        for node in plan.begin {
            self.begin_pushing(host, node);
        }
        for node in plan.close {
            self.close_surplus(host, node);
        }
        for node in plan.dial {
            let dial = Event::Dial {
                host,
                incarnation,
                to: self.host_of[&node],
                since: now,
                attempt: 0,
            };
            self.queue.plan(now, dial);
        }
    }

    /// A link that is newly chosen wishes for a beat of its own, with the card.
    fn begin_pushing(&mut self, host: Host, node: NodeId) {
        if self.is_brain(host) {
            return;
        }
        let peer = self.host_of[&node];
        let link = self
            .process(host)
            .and_then(|it| it.links.get(&peer))
            .copied();
        if let Some(link) = link {
            self.links[link.0 as usize].is_carded = false;
            self.wish_for_beat(host);
        }
    }

    fn close_surplus(&mut self, host: Host, node: NodeId) {
        let peer = self.host_of[&node];
        let link = self
            .process(host)
            .and_then(|it| it.links.get(&peer))
            .copied();
        let Some(link) = link.filter(|it| self.links[it.0 as usize].hosts[0] == host) else {
            return;
        };
        if let Some(process) = self.process(host) {
            process.links.remove(&peer);
        }
        self.send(link, End::Dialler, Message::Close);
        self.links[link.0 as usize].up[End::Dialler.at()] = false;
    }

    pub(super) fn dial(&mut self, host: Host, to: Host, since: Us, attempt: usize) {
        let now = self.now();
        let incarnation = self.host(host).incarnation;
        let since = if attempt == 0 { now } else { since };
        let to_state = self.host(to);
        if to_state.process.is_some() && !self.is_blocked(host, to) {
            let to_incarnation = to_state.incarnation;
            let delay = self.network.draw_pair();
            let handshake = self.network.draw_handshake(delay);
            let greeted = Event::Greeted {
                host,
                incarnation,
                to,
                to_incarnation,
                since,
                delay,
            };
            self.queue.plan(now + handshake, greeted);
            return;
        }
        match DIAL_TRIES_MS.get(attempt + 1) {
            Some(after) if after * MS < self.network.dial_timeout() => {
                let again = Event::Dial {
                    host,
                    incarnation,
                    to,
                    since,
                    attempt: attempt + 1,
                };
                self.queue.plan(since + after * MS, again);
            }
            _ => self.plan_dial_failure(host, to, since),
        }
    }

    fn plan_dial_failure(&mut self, host: Host, to: Host, since: Us) {
        let incarnation = self.host(host).incarnation;
        let failed = Event::DialFailed {
            host,
            incarnation,
            to,
        };
        self.queue.plan(since + self.network.dial_timeout(), failed);
    }

    pub(super) fn failed(&mut self, host: Host, to: Host) {
        let now = self.now();
        let id = self.host(to).id;
        if let Some(process) = self.hosts[host.at()].process.as_mut() {
            process.finder.failed(&id, now, &mut self.timers);
        }
        self.keep(host);
    }

    pub(super) fn greeted(
        &mut self,
        host: Host,
        to: Host,
        to_incarnation: u32,
        since: Us,
        delay: Us,
    ) {
        if !self.runs(to, to_incarnation) || self.is_blocked(host, to) {
            self.plan_dial_failure(host, to, since);
            return;
        }
        let (id, to_id) = (self.host(host).id, self.host(to).id);
        let existing = self.process(host).and_then(|it| it.links.get(&to)).copied();
        if existing.is_some_and(|link| self.links[link.0 as usize].is_up()) {
            // The other side dialled too, and was faster; or the link was quiet, and speaks again.
            self.answered(host, to_id);
            return;
        }
        // Where one side had not yet noticed that the link before is broken, it does now.
        for (at, other) in [(host, to), (to, host)] {
            let stale = self
                .process(at)
                .and_then(|it| it.links.get(&other))
                .copied();
            if let Some(link) = stale {
                let end = self.links[link.0 as usize].end_of(at);
                self.lose(link, end, true);
            }
        }
        let now = self.now();
        let link = LinkId(u32::try_from(self.links.len()).unwrap_or(u32::MAX));
        self.links.push(Link {
            hosts: [host, to],
            incarnations: [self.host(host).incarnation, to_incarnation],
            up: [true; 2],
            quiet: [false; 2],
            delay,
            last: [now; 2],
            is_carded: false,
            sound_since: now,
            cut_since: None,
        });
        self.trace.mix(u64::from(link.0) << 32 | u64::from(host.0));
        self.trace.line(now, host, None, || {
            format!("h{} links with o{}", host.0, to.0)
        });
        for (at, other) in [(host, to), (to, host)] {
            if let Some(process) = self.process(at) {
                process.links.insert(other, link);
            }
        }
        self.relinked(host);
        if self.is_brain(host) && self.is_brain(to) {
            self.feed(host, Input::PeerUp(to_id), None);
            self.feed(to, Input::PeerUp(id), None);
        }
        self.answered(host, to_id);
        self.keep(to);
    }

    fn answered(&mut self, host: Host, peer: NodeId) {
        let now = self.now();
        if let Some(finder) = self.finder(host) {
            finder.answered(&peer, now);
        }
        self.keep(host);
    }

    /// A worker that had lost all orchestrators has one again.
    fn relinked(&mut self, host: Host) {
        let now = self.now();
        let orphaned = self.process(host).and_then(|it| it.orphaned.take());
        if let Some(since) = orphaned {
            self.judge.found.relink.add((now - since) / MS);
        }
    }

    /// One end finds that a link is gone.
    pub(super) fn lose(&mut self, id: LinkId, end: End, is_broken: bool) {
        let link = &mut self.links[id.0 as usize];
        if !std::mem::replace(&mut link.up[end.at()], false) {
            return;
        }
        let (host, peer) = (link.hosts[end.at()], link.hosts[end.other().at()]);
        let (incarnation, other_is_up) = (link.incarnations[end.at()], link.up[end.other().at()]);
        if other_is_up {
            self.plan_notice(id, end.other());
        }
        if !self.runs(host, incarnation) {
            return;
        }
        let Some(process) = self.process(host) else {
            return;
        };
        if process.links.get(&peer) == Some(&id) {
            process.links.remove(&peer);
        }
        let now = self.now();
        self.trace.line(now, peer, Some(host), || {
            format!("the link with h{} is lost (broken: {is_broken})", peer.0)
        });
        let peer_id = self.host(peer).id;
        if self.is_brain(host) {
            if self.is_brain(peer) {
                self.feed(host, Input::PeerDown(peer_id), None);
            }
            let how = if is_broken {
                Input::LinkLost(peer_id)
            } else {
                Input::LinkClosed(peer_id)
            };
            self.feed(host, how, None);
        }
        self.keep(host);
    }

    pub(super) fn plan_notice(&mut self, link: LinkId, end: End) {
        let now = self.now();
        let (quiet, down) = self.network.draw_silence();
        for (after, is_down) in [(quiet, false), (down, true)] {
            self.queue
                .plan(now + after, Event::Notice { link, end, is_down });
        }
    }

    /// One end has heard nothing for some time, if the path did not heal meanwhile.
    pub(super) fn notice(&mut self, id: LinkId, end: End, is_down: bool) {
        let now = self.now();
        let least = self.network.least_silence(is_down);
        let link = &self.links[id.0 as usize];
        let is_dead = !link.up[end.other().at()];
        let is_cut = link.cut_since.is_some_and(|since| now - since >= least);
        if !is_dead && !is_cut {
            return;
        }
        if is_down {
            self.lose(id, end, true);
        } else {
            self.hears(id, end, false);
        }
    }

    /// One end hears nothing on a link that is up, or hears something again.
    fn hears(&mut self, id: LinkId, end: End, something: bool) {
        let link = &mut self.links[id.0 as usize];
        let was_quiet = std::mem::replace(&mut link.quiet[end.at()], !something);
        let (host, peer) = (link.hosts[end.at()], link.hosts[end.other().at()]);
        if was_quiet != something || !link.up[end.at()] {
            return;
        }
        if !self.runs(host, self.links[id.0 as usize].incarnations[end.at()]) {
            return;
        }
        let node = self.host(peer).id;
        if self.is_brain(host) {
            let input = if something {
                Input::LinkLively(node)
            } else {
                Input::LinkQuiet(node)
            };
            self.feed(host, input, None);
        }
        self.keep(host);
    }

    pub(super) fn is_blocked(&self, a: Host, b: Host) -> bool {
        let side = |sides: &Vec<bool>, host: Host| sides.get(host.at()).copied().unwrap_or(false);
        let parted = (self.partitions.values()).any(|sides| side(sides, a) != side(sides, b));
        let pair = (a.min(b), a.max(b));
        parted || (!self.cuts.is_empty() && self.cuts.contains_key(&pair))
    }

    /// Paths changed: links whose path was cut or healed are told so.
    pub(super) fn paths_changed(&mut self) {
        for at in 0..self.links.len() {
            self.path_changed(LinkId(u32::try_from(at).unwrap_or(u32::MAX)));
        }
    }

    pub(super) fn path_changed(&mut self, id: LinkId) {
        let now = self.now();
        let link = &self.links[id.0 as usize];
        if !link.up[0] && !link.up[1] {
            return;
        }
        let is_blocked = self.is_blocked(link.hosts[0], link.hosts[1]);
        let link = &mut self.links[id.0 as usize];
        match (link.cut_since, is_blocked) {
            (None, true) => {
                link.cut_since = Some(now);
                self.plan_notice(id, End::Dialler);
                self.plan_notice(id, End::Listener);
            }
            (Some(_), false) => {
                link.cut_since = None;
                link.sound_since = now;
                if link.is_up() {
                    self.hears(id, End::Dialler, true);
                    self.hears(id, End::Listener, true);
                }
            }
            _ => {}
        }
    }

    pub(super) fn is_brain(&self, host: Host) -> bool {
        self.host(host).kind != Kind::Worker
    }
}
