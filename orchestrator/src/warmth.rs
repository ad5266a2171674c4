//! Which worker was sent a prompt that begins as this one. Pure: time is passed in. (SCH-2)
//!
//! An engine that keeps what it computed of a prompt gives the first token of the next one that begins
//! alike sooner. None of the engines tells what it keeps, so this is what was sent where, by this
//! orchestrator, of late; it is a hint, and a wrong one costs no more than there was without it.
//!
//! Memory is bounded by generations: what was sent goes into the younger of two, and when that is full
//! or old the older one is dropped. What nobody comes back to is so forgotten between one and two
//! generations later, and nothing has to be searched for what is old.

use std::collections::HashMap;
use tether_wire::infer::Prefix;
use tether_wire::{Digest, NodeId};

/// Beginnings in a generation. Two are kept: about 25 MB where both are full.
pub const MAX_BEGINNINGS: usize = 65_536;
/// Time after which a generation is old. An engine's cache seldom keeps for longer what nobody asks
/// for.
pub const GENERATION_MS: u64 = 300_000;
/// Workers that are remembered for a beginning, the last ones: one that many conversations share is
/// warm at several.
pub const MAX_HOMES: usize = 3;

/// A run of a worker: what it kept is gone with its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Which worker.
    pub worker: NodeId,
    /// Its boot epoch.
    pub epoch: u64,
}

/// Where a prompt's beginning is likely warm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warm {
    homes: [Option<Home>; MAX_HOMES],
    /// Blocks of the prompt's beginning that went there.
    pub blocks: u32,
}

impl Warm {
    /// The workers, the last one first.
    pub fn homes(&self) -> impl Iterator<Item = &Home> {
        self.homes.iter().flatten()
    }
}

/// The artifact and the hash of all that the beginning holds.
type Beginning = (u64, u64);
type Homes = [Option<Home>; MAX_HOMES];

/// What was sent where.
#[derive(Debug)]
pub struct Warmth {
    young: HashMap<Beginning, Homes>,
    old: HashMap<Beginning, Homes>,
    /// When the younger generation began.
    began_ms: u64,
    most: usize,
}

impl Default for Warmth {
    fn default() -> Self {
        Self::with_room(MAX_BEGINNINGS)
    }
}

impl Warmth {
    fn with_room(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            began_ms: 0,
            most,
        }
    }

    /// Where the longest beginning of a prompt that is remembered went.
    pub fn find(&mut self, artifact: &Digest, prefix: &Prefix, now_ms: u64) -> Warm {
        self.age(now_ms);
        let artifact = first_eight(artifact);
        // Whoever was sent a beginning was sent all shorter ones with it.
        let (mut known, mut unknown) = (0, prefix.blocks().len());
        let mut homes = Homes::default();
        while known < unknown {
            let middle = (known + unknown) / 2;
            let hash = prefix.blocks().nth(middle).unwrap_or_default();
            match self.homes((artifact, hash)) {
                Some(found) => (known, homes) = (middle + 1, *found),
                None => unknown = middle,
            }
        }
        Warm {
            homes,
            blocks: u32::try_from(known).unwrap_or(u32::MAX),
        }
    }

    /// A prompt is sent to a worker.
    pub fn sent(&mut self, artifact: &Digest, prefix: &Prefix, home: Home, now_ms: u64) {
        self.age(now_ms);
        let artifact = first_eight(artifact);
        for hash in prefix.blocks() {
            let beginning = (artifact, hash);
            let mut homes = self.homes(beginning).copied().unwrap_or_default();
            // In the place of an earlier run of it, or of the one that was last sent anything longest
            // ago.
            let at = (homes.iter())
                .position(|it| it.is_none_or(|it| it.worker == home.worker))
                .unwrap_or(MAX_HOMES - 1);
            homes[at] = Some(home);
            homes[..=at].rotate_right(1);
            if self.young.len() >= self.most {
                self.turn(now_ms);
            }
            self.young.insert(beginning, homes);
        }
    }

    fn homes(&self, beginning: Beginning) -> Option<&Homes> {
        (self.young.get(&beginning)).or_else(|| self.old.get(&beginning))
    }

    fn age(&mut self, now_ms: u64) {
        let age_ms = now_ms.saturating_sub(self.began_ms);
        if age_ms >= 2 * GENERATION_MS {
            self.old.clear();
            self.young.clear();
            self.began_ms = now_ms;
        } else if age_ms >= GENERATION_MS {
            self.turn(now_ms);
        }
    }

    fn turn(&mut self, now_ms: u64) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.began_ms = now_ms;
    }
}

fn first_eight(artifact: &Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&artifact.0[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;
    use tether_wire::TenantId;
    use tether_wire::infer::{Input, Output, PREFIX_BLOCK_BYTES};

    const MODEL: Digest = Digest([7; 32]);

    /// A prompt of blocks that each hold one letter.
    fn prompt(blocks: &str) -> Prefix {
        let text = (blocks.chars()).map(|it| it.to_string().repeat(PREFIX_BLOCK_BYTES));
        let tenant = TenantId::new("acme").expect("valid");
        let input = Input::Text(text.collect());
        Prefix::of(&tenant, &input, &Output::default())
    }

    fn home(n: u16, epoch: u64) -> Home {
        Home {
            worker: id(n),
            epoch,
        }
    }

    fn found(warmth: &mut Warmth, blocks: &str, now_ms: u64) -> (Vec<Home>, u32) {
        let warm = warmth.find(&MODEL, &prompt(blocks), now_ms);
        (warm.homes().copied().collect(), warm.blocks)
    }

    #[test]
    fn a_conversation_is_found_where_its_longest_beginning_went() {
        let mut warmth = Warmth::default();
        warmth.sent(&MODEL, &prompt("sab"), home(1, 1), 0);
        warmth.sent(&MODEL, &prompt("sxyz"), home(2, 1), 0);
        assert_eq!(found(&mut warmth, "sabcd", 0), (vec![home(1, 1)], 3));
        assert_eq!(found(&mut warmth, "sxy", 0), (vec![home(2, 1)], 3));
        let both = vec![home(2, 1), home(1, 1)];
        assert_eq!(found(&mut warmth, "sq", 0), (both, 1), "what they share");
        assert_eq!(found(&mut warmth, "q", 0), (Vec::new(), 0));
        let other = warmth.find(&Digest([8; 32]), &prompt("sab"), 0);
        assert_eq!(other, Warm::default(), "another artifact is another prompt");
    }

    #[test]
    fn the_last_few_are_remembered_and_a_new_run_takes_the_place_of_the_one_before() {
        let mut warmth = Warmth::default();
        for n in 0..5 {
            warmth.sent(&MODEL, &prompt("s"), home(n, 1), 0);
        }
        let last = vec![home(4, 1), home(3, 1), home(2, 1)];
        assert_eq!(found(&mut warmth, "s", 0).0, last);
        warmth.sent(&MODEL, &prompt("s"), home(2, 9), 0);
        let (homes, _) = found(&mut warmth, "s", 0);
        assert_eq!(homes, [home(2, 9), home(4, 1), home(3, 1)]);
    }

    #[test]
    fn what_nobody_comes_back_to_is_forgotten_and_the_rest_is_not() {
        let mut warmth = Warmth::default();
        warmth.sent(&MODEL, &prompt("a"), home(1, 1), 0);
        warmth.sent(&MODEL, &prompt("b"), home(2, 1), 0);
        let at = GENERATION_MS;
        warmth.sent(&MODEL, &prompt("a"), home(1, 1), at);
        assert_eq!(found(&mut warmth, "b", at).1, 1);
        assert_eq!(found(&mut warmth, "a", 2 * at).1, 1);
        assert_eq!(found(&mut warmth, "b", 2 * at).1, 0);
        assert_eq!(found(&mut warmth, "a", 10 * at).1, 0, "a long silence");
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut warmth = Warmth::with_room(10);
        for n in 0..200 {
            let prompt = prompt(&char::from_u32(0x4e00 + n).expect("a letter").to_string());
            warmth.sent(&MODEL, &prompt, home(1, 1), 0);
            assert!(warmth.young.len() <= 10 && warmth.old.len() <= 10);
        }
        assert!(warmth.young.len() + warmth.old.len() > 10);
    }
}
