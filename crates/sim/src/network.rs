//! How long a message takes. Pure but for its draws.
//!
//! A link is a QUIC connection: while it lives nothing is lost on it for good, a lost packet is
//! sent again after a probe timeout (RFC 9002, section 6.2) and what follows it on the stream waits.
//! What is deliberately absent: congestion control and bandwidth; presence sends little.

use crate::queue::{MS, Us};
use crate::random::Random;
use crate::scenario;

/// Bytes of a packet of QUIC that are left for our data.
const PACKET_BYTES: usize = 1_200;
/// Most time that a receiver waits before it acknowledges (RFC 9000, section 18.2).
const MAX_ACK_DELAY_MS: f64 = 25.0;
/// Packets behind a lost one by which a sender knows of the loss without waiting (RFC 9002, 6.1.1).
const PACKET_THRESHOLD: usize = 3;
/// When an unanswered first packet of a dial is sent again, in milliseconds after the dial began.
pub(crate) const DIAL_TRIES_MS: [u64; 4] = [0, 1_000, 3_000, 7_000];

/// The network of a run.
#[derive(Debug)]
pub(crate) struct Network {
    settings: scenario::Network,
    random: Random,
    batch_loss: f64,
    duplicate: f64,
}

impl Network {
    pub(crate) fn new(settings: scenario::Network, random: Random) -> Self {
        Self {
            settings,
            random,
            batch_loss: 0.0,
            duplicate: 0.0,
        }
    }

    /// One-way delay of a pair of nodes.
    pub(crate) fn draw_pair(&mut self) -> Us {
        let [low, high] = self.settings.delay_ms;
        us(self.random.between(low, high))
    }

    /// Time from sending a message until its last byte is there.
    pub(crate) fn draw_delay(&mut self, pair: Us, bytes: usize) -> Us {
        let jitter = self.random.unit() * self.settings.jitter;
        scaled(pair, 1.0 + jitter) + self.draw_repairs(pair, bytes)
    }

    /// Time that repairs of lost packets add.
    fn draw_repairs(&mut self, pair: Us, bytes: usize) -> Us {
        let loss = self.settings.loss;
        if loss <= 0.0 {
            return 0;
        }
        let round_trip = 2 * pair;
        let probe = scaled(round_trip, 1.0 + 2.0 * self.settings.jitter) + us(MAX_ACK_DELAY_MS);
        let mut packets = bytes.div_ceil(PACKET_BYTES).max(1);
        let mut added = 0;
        let mut timeout = if packets > PACKET_THRESHOLD {
            scaled(round_trip, 9.0 / 8.0)
        } else {
            probe
        };
        loop {
            packets = (0..packets).filter(|_| self.random.chance(loss)).count();
            if packets == 0 {
                return added;
            }
            added += timeout;
            timeout = (2 * timeout).max(probe);
        }
    }

    /// Time from a dial's first answered packet until both sides have greeted: two round trips.
    pub(crate) fn draw_handshake(&mut self, pair: Us) -> Us {
        (0..4)
            .map(|_| self.draw_delay(pair, PACKET_BYTES))
            .sum::<Us>()
    }

    /// Times from a break of the path until one side finds the link quiet, and until it finds it
    /// down.
    pub(crate) fn draw_silence(&mut self) -> (Us, Us) {
        let unheard = self.random.unit() * self.settings.keep_alive_ms;
        let quiet = us(self.settings.quiet_ms - unheard);
        (quiet, us(self.settings.idle_ms - unheard))
    }

    /// Least time from a break until the link is quiet, or down.
    pub(crate) fn least_silence(&self, is_down: bool) -> Us {
        let silence = if is_down {
            self.settings.idle_ms
        } else {
            self.settings.quiet_ms
        };
        us(silence - self.settings.keep_alive_ms)
    }

    /// Time after which a dial is given up.
    pub(crate) fn dial_timeout(&self) -> Us {
        us(self.settings.dial_ms)
    }

    /// Time after which a message that found the path cut is sent again.
    pub(crate) fn draw_retransmission(&mut self) -> Us {
        us(self.random.between(100.0, 400.0))
    }

    /// A storm begins, or ends with zeros.
    pub(crate) fn set_storm(&mut self, batch_loss: f64, duplicate: f64) {
        self.batch_loss = batch_loss;
        self.duplicate = duplicate;
    }

    /// Whether this message vanishes.
    pub(crate) fn is_lost(&mut self) -> bool {
        self.random.chance(self.batch_loss)
    }

    /// Whether this message comes twice.
    pub(crate) fn is_doubled(&mut self) -> bool {
        self.random.chance(self.duplicate)
    }

    /// Whether messages of a link keep their order.
    pub(crate) fn is_ordered(&self) -> bool {
        self.settings.ordered
    }
}

/// Milliseconds of a scenario as simulated time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "validated to be minutes at most, and not negative"
)]
pub(crate) fn us(ms: f64) -> Us {
    (ms * MS as f64) as Us
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "delays of seconds"
)]
fn scaled(time: Us, by: f64) -> Us {
    (time as f64 * by) as Us
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn network(loss: f64) -> Network {
        let settings = scenario::Network {
            loss,
            ..scenario::Network::default()
        };
        Network::new(settings, Random::new(7, Stream::Network))
    }

    #[test]
    fn loss_shows_as_delay_of_round_trips() {
        let pair = 20 * MS;
        let mean = |loss| {
            let mut network = network(loss);
            (0..10_000)
                .map(|_| network.draw_delay(pair, 300))
                .sum::<Us>()
                / 10_000
        };
        let (without, with) = (mean(0.0), mean(0.05));
        assert!((20 * MS..27 * MS).contains(&without), "{without}");
        let probe = 2 * 20 * MS * 16 / 10 + 25 * MS;
        let expected = without + probe * 5 / 100;
        assert!(
            (expected..expected + 3 * MS).contains(&with),
            "{with} {expected}"
        );
    }

    #[test]
    fn a_link_is_quiet_and_then_down_within_its_timeouts() {
        let mut network = network(0.0);
        for _ in 0..1_000 {
            let (quiet, down) = network.draw_silence();
            assert!((1_500 * MS..=2_000 * MS).contains(&quiet));
            assert_eq!(down, quiet + 13_000 * MS);
        }
    }
}
