//! The addresses at which others see this node, which are not on this machine where a router
//! translates: what hole punching needs to know. Pure. [T-LNK-8]

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use tether_wire::NodeId;

/// How many peers' words are kept, the latest. One is enough behind a router that gives one outer
/// port to each inner one; behind another kind none helps.
const MAX_OBSERVERS: usize = 4;

/// Who sees this node where.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The latest word of each, the oldest first.
    words: VecDeque<(NodeId, SocketAddr)>,
    /// Addresses of this machine itself, which nobody has to tell.
    local: BTreeSet<SocketAddr>,
}

/// What to publish, and what no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) added: Vec<SocketAddr>,
    pub(super) removed: Vec<SocketAddr>,
}

impl Observed {
    /// A peer says where it sees this node.
    pub(super) fn told(&mut self, by: NodeId, address: SocketAddr) -> Change {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let ip = address.ip();
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
            return Change::default();
        }
        let is_local = self.local.contains(&address);
        self.change(|known| {
            known.retain(|(peer, _)| *peer != by);
            if !is_local {
                known.push_back((by, address));
            }
            while known.len() > MAX_OBSERVERS {
                known.pop_front();
            }
        })
    }

    /// A peer is gone, and what it saw may be over.
    pub(super) fn gone(&mut self, by: &NodeId) -> Change {
        self.change(|known| known.retain(|(peer, _)| peer != by))
    }

    /// The addresses of this machine, whenever they are looked at. Once they change it is elsewhere,
    /// and what was seen before is over.
    pub(super) fn local(&mut self, local: BTreeSet<SocketAddr>) -> Change {
        let before = std::mem::replace(&mut self.local, local);
        if before.is_empty() || before == self.local {
            return Change::default();
        }
        let of = |all: &BTreeSet<SocketAddr>, v4| -> Vec<SocketAddr> {
            let of_kind = all.iter().filter(|address| address.is_ipv4() == v4);
            of_kind.copied().collect()
        };
        // Addresses of IPv6 come and go by themselves, and mean nothing for the others.
        let stays = |v4| of(&before, v4) == of(&self.local, v4);
        let (four, six) = (stays(true), stays(false));
        self.change(|known| {
            known.retain(|(_, address)| if address.is_ipv4() { four } else { six });
        })
    }

    /// All of them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.words.iter().map(|(_, address)| *address).collect();
        all.sort();
        all.dedup();
        all
    }

    fn change(&mut self, how: impl FnOnce(&mut VecDeque<(NodeId, SocketAddr)>)) -> Change {
        let before = self.addresses();
        how(&mut self.words);
        let mut added = self.addresses();
        let mut removed = before.clone();
        removed.retain(|address| !added.contains(address));
        added.retain(|address| !before.contains(address));
        Change { added, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_published_while_somebody_sees_it() {
        let mut observed = Observed::default();
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let change = observed.told(a, at("[::ffff:192.0.2.1]:7"));
        assert_eq!(change.added, [at("192.0.2.1:7")], "in its plain form");
        assert_eq!(observed.told(b, at("192.0.2.1:7")), Change::default());
        assert_eq!(observed.gone(&a), Change::default(), "b sees it still");
        let change = observed.told(b, at("192.0.2.2:7"));
        assert_eq!(change.added, [at("192.0.2.2:7")]);
        assert_eq!(change.removed, [at("192.0.2.1:7")]);
        assert_eq!(observed.gone(&b).removed, [at("192.0.2.2:7")]);
        assert!(observed.addresses().is_empty());
    }

    /// [T-LNK-8]
    #[test]
    fn a_node_that_moves_forgets_where_it_was_seen() {
        let local = |texts: &[&str]| texts.iter().map(|text| at(text)).collect::<BTreeSet<_>>();
        let mut observed = Observed::default();
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        observed.local(local(&["10.0.0.2:7", "[2001:db8::1]:7"]));
        let own = observed.told(a, at("10.0.0.2:7"));
        assert_eq!(own, Change::default(), "its own address is known");
        observed.told(a, at("192.0.2.1:7"));
        observed.told(b, at("[2001:db8::9]:7"));
        let same = local(&["10.0.0.2:7", "[2001:db8::2]:7"]);
        assert_eq!(
            observed.local(same.clone()).removed,
            [at("[2001:db8::9]:7")]
        );
        assert_eq!(observed.local(same), Change::default());
        let elsewhere = observed.local(local(&["10.9.9.2:7", "[2001:db8::2]:7"]));
        assert_eq!(elsewhere.removed, [at("192.0.2.1:7")]);
    }

    /// [T-LNK-8]
    #[test]
    fn what_can_be_no_address_is_passed_over_and_the_words_are_bounded() {
        let mut observed = Observed::default();
        for wrong in [
            "127.0.0.1:7",
            "0.0.0.0:7",
            "224.0.0.1:7",
            "192.0.2.1:0",
            "[::1]:7",
        ] {
            assert_eq!(observed.told(NodeId([9; 32]), at(wrong)), Change::default());
        }
        for n in 0..10 {
            observed.told(NodeId([n; 32]), at(&format!("192.0.2.{n}:7")));
        }
        let kept: Vec<_> = (6..10).map(|n| at(&format!("192.0.2.{n}:7"))).collect();
        assert_eq!(observed.addresses(), kept, "the latest");
    }
}
