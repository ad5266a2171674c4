//! What was given of an answer, and how that is told to the next owner of its job. Pure. [T-INF-15]

use crate::text::retelling::Retelling;
use tether_wire::infer::Chunk;

/// Most bytes of an answer that are held to be told again; a longer one is made again.
const MAX_GIVEN_BYTES: usize = 2 * 1024 * 1024;
/// About what a piece, a token and its likelihoods take beside their text.
const PIECE_BYTES: usize = 128;
const LIKELY_BYTES: usize = 64;

/// The pieces that were given so far; nothing of one that is too long.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    pieces: Vec<Chunk>,
    bytes: usize,
}

impl Given {
    /// One more was given.
    pub(crate) fn add(&mut self, chunk: &Chunk) {
        self.bytes = self.bytes.saturating_add(bytes(chunk));
        if self.bytes > MAX_GIVEN_BYTES {
            self.pieces = Vec::new();
        } else {
            self.pieces.push(chunk.clone());
        }
    }

    /// The same for somebody who has a transcript of it: what that stands for, in large pieces that end
    /// where it does, and then the rest. Nothing where it is no beginning of what was given.
    /// [T-INF-11]
    pub(crate) fn told(&self, transcript: &[u32]) -> Option<Vec<Chunk>> {
        if self.bytes > MAX_GIVEN_BYTES {
            return None;
        }
        let mut left = transcript;
        let mut again = Retelling::default();
        let mut pieces = self.pieces.iter();
        while !left.is_empty() {
            let piece = pieces.next()?;
            if piece.unnamed > 0 {
                return None;
            }
            left = left.strip_prefix(piece.tokens.as_slice())?;
            again.take(Chunk {
                logprobs: Vec::new(),
                ..piece.clone()
            });
        }
        let mut told = again.into_pieces();
        told.extend(pieces.cloned());
        Some(told)
    }
}

fn bytes(chunk: &Chunk) -> usize {
    let likely = chunk.logprobs.iter();
    let likely = likely.map(|it| LIKELY_BYTES * (1 + it.top.len()));
    PIECE_BYTES + 4 * chunk.tokens.len() + chunk.bytes() + likely.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::TokenLogprob;

    fn given(pieces: &[Chunk]) -> Given {
        let mut given = Given::default();
        pieces.iter().for_each(|piece| given.add(piece));
        given
    }

    fn answer() -> Vec<Chunk> {
        vec![
            Chunk::new(0, vec![7], "a"),
            Chunk::new(1, vec![8, 9], "bc"),
            Chunk::new(3, vec![5], "d"),
        ]
    }

    #[test]
    fn what_somebody_has_is_told_in_one_piece_that_ends_with_it_and_the_rest_as_it_came() {
        let given = given(&answer());
        let told = given.told(&[7, 8, 9]).expect("its beginning");
        assert_eq!(
            told,
            [Chunk::new(0, vec![7, 8, 9], "abc"), answer()[2].clone()]
        );
        assert_eq!(given.told(&[]), Some(answer()));
        let all = given.told(&[7, 8, 9, 5]).expect("all of it");
        assert_eq!(all, [Chunk::new(0, vec![7, 8, 9, 5], "abcd")]);
    }

    #[test]
    fn what_is_no_beginning_of_it_cannot_be_gone_on_from() {
        let given = given(&answer());
        for other in [&[8][..], &[7, 8], &[7, 8, 9, 5, 5]] {
            assert_eq!(given.told(other), None, "{other:?}");
        }
    }

    #[test]
    fn how_likely_tokens_were_is_not_told_of_those_that_somebody_has() {
        let likely = |mut chunk: Chunk| {
            let logprob = TokenLogprob {
                token: chunk.tokens[0],
                logprob: -0.5,
                bytes: Vec::new(),
                top: Vec::new(),
            };
            chunk.logprobs = vec![logprob];
            chunk
        };
        let pieces = [0, 1].map(|at| likely(Chunk::new(at, vec![at], "x")));
        let told = given(&pieces).told(&[0]).expect("its beginning");
        assert!(told[0].logprobs.is_empty());
        assert_eq!(told[1], pieces[1]);
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_held() {
        let mut given = Given::default();
        let text = "x".repeat(MAX_GIVEN_BYTES / 2);
        given.add(&Chunk::new(0, vec![1], text.clone()));
        assert!(given.told(&[1]).is_some());
        given.add(&Chunk::new(1, vec![2], text));
        assert_eq!(given.told(&[1]), None);
        given.add(&Chunk::new(2, vec![3], "x"));
        assert!(given.pieces.is_empty());
    }
}
