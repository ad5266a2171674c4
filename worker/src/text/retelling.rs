//! What a transcript stands for, told again in large pieces. Pure. [T-INF-11]
//!
//! Nobody is sent it a second time. A worker signs the whole answer all the same, and only who has
//! the tokenizer knows the text of the tokens.

use tether_wire::infer::{Chunk, MAX_TRANSCRIPT_TOKENS};

/// Tokens of a piece. Even the longest transcript has fewer pieces than may wait for their reader.
const TOKENS_OF_A_PIECE: usize = 1_024;
const _: () = assert!(
    MAX_TRANSCRIPT_TOKENS / TOKENS_OF_A_PIECE < crate::engine::MAX_WAITING_CHUNKS,
    "nobody has to read while it is told"
);

/// A transcript so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Retelling(Vec<Chunk>);

impl Retelling {
    /// The next piece of the answer, as its first caller got it.
    pub(crate) fn take(&mut self, chunk: Chunk) {
        match self.0.last_mut() {
            Some(last) if last.tokens.len() < TOKENS_OF_A_PIECE => {
                last.tokens.extend(chunk.tokens);
                last.text += &chunk.text;
                last.calls.extend(chunk.calls);
            }
            _ => self.0.push(chunk),
        }
    }

    /// All of it, in order.
    pub(crate) fn into_pieces(self) -> Vec<Chunk> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_large_and_have_no_gaps() {
        let mut told = Retelling::default();
        let count = 2 * TOKENS_OF_A_PIECE as u32 + 3;
        for position in 0..count {
            told.take(Chunk::new(position, vec![position], "é"));
        }
        let pieces = told.into_pieces();
        assert_eq!(pieces.len(), 3);
        let mut next = 0;
        for piece in &pieces {
            assert_eq!(piece.position, next);
            next += piece.positions().expect("few");
            assert_eq!(piece.text.chars().count(), piece.tokens.len());
        }
        assert_eq!(next, count);
        assert!(Retelling::default().into_pieces().is_empty());
    }
}
