//! Chance from a seed, in separate streams: a change of one part of a run leaves the draws of the
//! others as they were.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What draws from a stream.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Who the nodes are, their clocks, when they start.
    Nodes,
    /// Delay and loss.
    Network,
    /// Who is hit by the disturbances, and when.
    Disturbance,
    /// Timers of the nodes: jitter of beats, back-off.
    Timers,
    /// What the attacker sends again.
    Attacker,
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream as u64);
        Self(generator)
    }

    /// From 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Below a number that is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit.max(1))
    }

    /// Exponentially distributed with mean 1: the time between two events that know nothing of
    /// each other.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// `count` different ones of these, in no order.
    pub fn pick<T: Copy>(&mut self, from: &[T], count: usize) -> Vec<T> {
        let mut from = from.to_vec();
        let count = count.min(from.len());
        for at in 0..count {
            let other = at + self.below(from.len() - at);
            from.swap(at, other);
        }
        from.truncate(count);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws_and_streams_differ() {
        let draw = |seed, stream| Random::new(seed, stream).any();
        assert_eq!(draw(1, Stream::Network), draw(1, Stream::Network));
        assert_ne!(draw(1, Stream::Network), draw(2, Stream::Network));
        assert_ne!(draw(1, Stream::Network), draw(1, Stream::Nodes));
    }

    #[test]
    fn picks_are_different_and_no_more_than_there_are() {
        let mut random = Random::new(1, Stream::Nodes);
        let mut picked = random.pick(&[1, 2, 3, 4], 3);
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked.len(), 3);
        assert_eq!(random.pick(&[1, 2], 9).len(), 2);
    }
}
