//! Who may try to link: counted before anything is spent on them. Pure, but for the lock. (NET-7)

use crate::config::LinkLimits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block of addresses that one party usually holds: IPv4 /24, IPv6 /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Block([u8; 8]);

impl Block {
    fn of(ip: IpAddr) -> Option<Self> {
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        if ip.is_loopback() {
            return None;
        }
        let mut block = [0; 8];
        match ip {
            IpAddr::V4(v4) => {
                block[0] = 4;
                block[1..4].copy_from_slice(&v4.octets()[..3]);
            }
            IpAddr::V6(v6) => {
                block[0] = 6;
                block[1..8].copy_from_slice(&v6.octets()[..7]);
            }
        }
        Some(Self(block))
    }
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} links are open, no more are allowed")]
    Links(usize),
    #[error("{0} greetings are under way, no more are allowed")]
    Greetings(usize),
    #[error("{0} links come from its block of addresses, no more are allowed")]
    Block(usize),
}

#[derive(Debug, Default)]
struct Counts {
    links: usize,
    greeting: usize,
    blocks: HashMap<Block, usize>,
}

/// Counts links, and greetings under way.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    counts: Arc<Mutex<Counts>>,
    limits: Arc<LinkLimits>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
    block: Option<Block>,
    greeting: bool,
}

impl Gate {
    pub(crate) fn new(limits: Arc<LinkLimits>) -> Self {
        let counts = Arc::default();
        Self { counts, limits }
    }

    /// A place for one who comes from outside.
    pub(crate) fn enter(&self, ip: Option<IpAddr>) -> Result<Place, Full> {
        let block = ip.and_then(Block::of);
        let mut counts = self.counts();
        if counts.links >= self.limits.max_links {
            return Err(Full::Links(counts.links));
        }
        if counts.greeting >= self.limits.max_greeting {
            return Err(Full::Greetings(counts.greeting));
        }
        if let Some(block) = block {
            let here = counts.blocks.entry(block).or_default();
            if *here >= self.limits.max_per_address_block {
                return Err(Full::Block(*here));
            }
            *here += 1;
        }
        counts.links += 1;
        counts.greeting += 1;
        Ok(Place {
            gate: self.clone(),
            block,
            greeting: true,
        })
    }

    /// A place for one that this node dials.
    pub(crate) fn leave_home(&self) -> Result<Place, Full> {
        let mut counts = self.counts();
        if counts.links >= self.limits.max_links {
            return Err(Full::Links(counts.links));
        }
        counts.links += 1;
        Ok(Place {
            gate: self.clone(),
            block: None,
            greeting: false,
        })
    }

    /// Whether strangers should first prove that they are where they say.
    pub(crate) fn is_crowded(&self) -> bool {
        self.counts().greeting >= self.limits.max_greeting / 2
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The greeting is over, the link is up.
    pub(crate) fn greeted(&mut self) {
        if std::mem::take(&mut self.greeting) {
            self.gate.counts().greeting -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.greeted();
        let mut counts = self.gate.counts();
        counts.links -= 1;
        if let Some(block) = self.block
            && let Some(here) = counts.blocks.get_mut(&block)
        {
            *here -= 1;
            if *here == 0 {
                counts.blocks.remove(&block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(limits: LinkLimits) -> Gate {
        Gate::new(Arc::new(limits))
    }
    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn one_block_of_addresses_cannot_take_all_places() {
        let gate = gate(LinkLimits {
            max_per_address_block: 2,
            ..LinkLimits::default()
        });
        let first = gate.enter(ip("198.51.100.1")).expect("room");
        let _second = gate.enter(ip("198.51.100.200")).expect("room");
        assert_eq!(gate.enter(ip("198.51.100.3")).err(), Some(Full::Block(2)));
        assert_eq!(
            gate.enter(ip("::ffff:198.51.100.3")).err(),
            Some(Full::Block(2)),
            "the same address in another form"
        );
        let _elsewhere = gate.enter(ip("198.51.101.1")).expect("another block");
        let _six = gate.enter(ip("2001:db8:1:100::1")).expect("room");
        let _six_too = gate.enter(ip("2001:db8:1:1ff::1")).expect("room");
        assert!(gate.enter(ip("2001:db8:1:101::1")).is_err(), "the same /56");
        drop(first);
        assert!(
            gate.enter(ip("198.51.100.3")).is_ok(),
            "the place was freed"
        );
    }

    #[test]
    fn a_mesh_on_one_machine_is_not_held_to_the_blocks() {
        let gate = gate(LinkLimits {
            max_per_address_block: 1,
            ..LinkLimits::default()
        });
        let places: Vec<_> = (0..10).map(|_| gate.enter(ip("127.0.0.1"))).collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[test]
    fn links_and_greetings_are_bounded_in_total_and_freed() {
        let gate = gate(LinkLimits {
            max_links: 3,
            max_greeting: 2,
            ..LinkLimits::default()
        });
        let mut first = gate.enter(None).expect("room");
        assert!(gate.is_crowded());
        let second = gate.enter(None).expect("room");
        assert_eq!(gate.enter(None).err(), Some(Full::Greetings(2)));
        first.greeted();
        let third = gate.enter(None).expect("a greeting is over");
        assert_eq!(gate.enter(None).err(), Some(Full::Links(3)));
        assert_eq!(gate.leave_home().err(), Some(Full::Links(3)));
        drop((first, second, third));
        assert_eq!(gate.counts().links, 0);
        assert_eq!(gate.counts().greeting, 0);
    }
}
