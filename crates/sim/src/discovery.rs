//! The DHT as an oracle: it answers late, incompletely and out of date.

use crate::host::Host;
use crate::network::us;
use crate::queue::{Us, seconds};
use crate::random::Random;
use crate::scenario;
use std::collections::BTreeMap;

/// Most keys that a look-up gives, as one of HyperDHT does.
const MAX_FOUND: usize = 20;

/// Who is found, from when until when.
#[derive(Debug)]
pub(crate) struct Oracle {
    settings: scenario::Discovery,
    entries: BTreeMap<Host, (Us, Us)>,
}

impl Oracle {
    pub(crate) fn new(settings: scenario::Discovery) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
        }
    }

    /// A node announces itself.
    pub(crate) fn announce(&mut self, host: Host, now: Us) {
        let from = now + seconds(self.settings.announce_s);
        let entry = self.entries.entry(host).or_insert((from, Us::MAX));
        if now >= entry.1 {
            entry.0 = from;
        }
        entry.1 = Us::MAX;
    }

    /// A node was killed: what it announced stays for a time.
    pub(crate) fn killed(&mut self, host: Host, now: Us) {
        if let Some(entry) = self.entries.get_mut(&host) {
            entry.1 = now + seconds(self.settings.stale_s);
        }
    }

    /// A node withdrew what it announced.
    pub(crate) fn withdrawn(&mut self, host: Host, now: Us) {
        if let Some(entry) = self.entries.get_mut(&host) {
            entry.1 = now;
        }
    }

    /// How long a look-up takes.
    pub(crate) fn draw_delay(&self, random: &mut Random) -> Us {
        let [low, high] = self.settings.delay_ms;
        us(random.between(low, high))
    }

    /// What a look-up finds.
    pub(crate) fn find(&self, now: Us, random: &mut Random) -> Vec<Host> {
        let found: Vec<Host> = (self.entries.iter())
            .filter(|(_, (from, until))| (*from..*until).contains(&now))
            .filter(|_| !random.chance(self.settings.miss))
            .map(|(host, _)| *host)
            .collect();
        if found.len() > MAX_FOUND {
            return random.pick(&found, MAX_FOUND);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SECOND;
    use crate::random::Stream;

    #[test]
    fn who_was_killed_is_found_for_a_time_and_who_withdrew_is_not() {
        let settings = scenario::Discovery {
            announce_s: 1.0,
            stale_s: 10.0,
            miss: 0.0,
            ..scenario::Discovery::default()
        };
        let mut random = Random::new(1, Stream::Timers);
        let mut oracle = Oracle::new(settings);
        oracle.announce(Host(1), 0);
        oracle.announce(Host(2), 0);
        assert!(oracle.find(SECOND / 2, &mut random).is_empty());
        assert_eq!(oracle.find(SECOND, &mut random), [Host(1), Host(2)]);
        oracle.killed(Host(1), 2 * SECOND);
        oracle.withdrawn(Host(2), 2 * SECOND);
        assert_eq!(oracle.find(3 * SECOND, &mut random), [Host(1)]);
        assert!(oracle.find(12 * SECOND, &mut random).is_empty());
        oracle.announce(Host(2), 20 * SECOND);
        assert!(oracle.find(20 * SECOND, &mut random).is_empty());
        assert_eq!(oracle.find(21 * SECOND, &mut random), [Host(2)]);
    }

    #[test]
    fn a_lookup_is_not_a_roll_call() {
        let mut oracle = Oracle::new(scenario::Discovery::default());
        for host in 0..100 {
            oracle.announce(Host(host), 0);
        }
        let mut random = Random::new(1, Stream::Timers);
        assert_eq!(oracle.find(5 * SECOND, &mut random).len(), MAX_FOUND);
    }
}
