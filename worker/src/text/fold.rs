//! Folds the tokens of an answer, in order, into text that is certain. Pure.
//!
//! Certain means: whole characters, and nothing that may still turn out to be part of a stop string.
//! The text of an answer depends on its tokens alone, not on how they came in pieces: a stop string is
//! found at the first character that completes one, as if characters came one by one.

use crate::text::calls::CallReader;
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::infer::{Chunk, Finish, Usage};

/// Tokens without a whole character after which broken bytes are shown as they are. A character has
/// at most four bytes, so more than that is not a character that is still coming.
const MAX_PENDING_TOKENS: usize = 8;

/// Makes text of tokens. Bytes that are no character yet come as U+FFFD.
pub trait Detokenize {
    /// The text of these tokens; special tokens have none.
    fn detokenize(&self, tokens: &[u32]) -> String;
}

impl<T: Detokenize + ?Sized> Detokenize for &T {
    fn detokenize(&self, tokens: &[u32]) -> String {
        (**self).detokenize(tokens)
    }
}

impl<T: Detokenize + ?Sized> Detokenize for std::sync::Arc<T> {
    fn detokenize(&self, tokens: &[u32]) -> String {
        (**self).detokenize(tokens)
    }
}

/// Where an answer ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that end the answer; they have no text.
    pub eos: BTreeSet<u32>,
    /// Most tokens, at least 1.
    pub max_tokens: u32,
    /// Strings before which the answer ends; none is empty.
    pub stop: Vec<String>,
    /// Special tokens that belong to the text of calls, and how they are spelt.
    pub spelled: BTreeMap<u32, String>,
}

/// What became of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The token, and the text that is certain since.
    pub chunk: Chunk,
    /// Set with the last token.
    pub finish: Option<Finish>,
}

/// An answer so far.
#[derive(Clone, Debug)]
pub struct Fold<D> {
    detokenizer: D,
    limits: Limits,
    drawn: u32,
    finish: Option<Finish>,
    /// The tokens from which the next text is made: those of the last text, for the blanks that
    /// depend on what is before, then those without text yet.
    window: Vec<u32>,
    /// How many of the window's tokens are text already.
    read: usize,
    /// Text that may be the beginning of a stop string.
    held: String,
    /// Finds calls in the text, where tools may be called.
    calls: Option<CallReader>,
}

impl<D: Detokenize> Fold<D> {
    /// An answer without tokens.
    pub fn new(detokenizer: D, limits: Limits) -> Self {
        Self {
            detokenizer,
            limits,
            drawn: 0,
            finish: None,
            window: Vec::new(),
            read: 0,
            held: String::new(),
            calls: None,
        }
    }

    /// With calls of tools read from the text.
    pub(crate) fn with_calls(mut self, calls: Option<CallReader>) -> Self {
        self.calls = calls;
        self
    }

    /// Tokens so far, the ending one included.
    #[must_use]
    pub fn drawn(&self) -> u32 {
        self.drawn
    }

    /// Why the answer ended, once it has.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Exact counts.
    #[must_use]
    pub fn usage(&self, prompt_tokens: u32) -> Usage {
        Usage {
            prompt_tokens,
            completion_tokens: self.drawn,
        }
    }

    /// Takes the next token; nothing when the answer has ended already.
    pub fn push(&mut self, token: u32) -> Option<Step> {
        self.push_and(token, false)
    }

    /// The same; `is_whole` ends the answer with this token, since nothing can follow it.
    pub(crate) fn push_and(&mut self, token: u32, is_whole: bool) -> Option<Step> {
        if self.finish.is_some() {
            return None;
        }
        let position = self.drawn;
        self.drawn += 1;
        let mut text = String::new();
        let mut ending = None;
        if self.limits.eos.contains(&token) {
            ending = Some(Finish::Stop);
        } else {
            let decoded = self.decode(token);
            text = self.release(&decoded);
            if is_whole {
                ending = Some(Finish::Stop);
            } else if self.drawn >= self.limits.max_tokens {
                ending = Some(Finish::Length);
            }
        }
        if let (None, Some(ending)) = (self.finish, ending) {
            text += &self.flush(ending);
        }
        let chunk = Chunk::new(position, vec![token], text);
        Some(Step {
            chunk: self.read_calls(chunk),
            finish: self.finish,
        })
    }

    /// Takes calls out of the text. An answer that holds some, and was not cut, ends by them.
    fn read_calls(&mut self, mut chunk: Chunk) -> Chunk {
        let Some(calls) = &mut self.calls else {
            return chunk;
        };
        let mut read = calls.push(&chunk.text);
        if calls.ended() {
            self.finish = Some(Finish::ToolCalls);
        } else if let Some(finish) = self.finish {
            read.text += &calls.finish().text;
            if finish == Finish::Stop && calls.made() > 0 {
                self.finish = Some(Finish::ToolCalls);
            }
        }
        (chunk.text, chunk.calls) = (read.text, read.calls);
        chunk
    }

    /// The text that this token completes, by decoding a short window twice: with and without it.
    /// Decoders look at neighbours (blanks, bytes of one character), so tokens cannot be decoded alone.
    fn decode(&mut self, token: u32) -> String {
        if let Some(spelling) = self.limits.spelled.get(&token).cloned() {
            let text = self.pending() + &spelling;
            self.window.clear();
            self.read = 0;
            return text;
        }
        self.window.push(token);
        let whole = self.detokenizer.detokenize(&self.window);
        let pending = self.window.len() - self.read;
        if whole.ends_with(char::REPLACEMENT_CHARACTER) && pending <= MAX_PENDING_TOKENS {
            return String::new();
        }
        self.advance(&whole)
    }

    fn advance(&mut self, whole: &str) -> String {
        let before = self.detokenizer.detokenize(&self.window[..self.read]);
        let new = whole.strip_prefix(before.as_str()).map(str::to_owned);
        // A decoder that changes earlier text: give what is longer by characters, and go on.
        let new = new.unwrap_or_else(|| whole.chars().skip(before.chars().count()).collect());
        if !new.is_empty() {
            self.window.drain(..self.read);
        }
        self.read = self.window.len();
        new
    }

    /// Adds text and gives back what is certain; ends the answer at a stop string.
    fn release(&mut self, text: &str) -> String {
        for character in text.chars() {
            self.held.push(character);
            let complete = self
                .limits
                .stop
                .iter()
                .filter(|stop| self.held.ends_with(stop.as_str()))
                .map(String::len)
                .max();
            if let Some(len) = complete {
                self.finish = Some(Finish::Stop);
                self.held.truncate(self.held.len() - len);
                return std::mem::take(&mut self.held);
            }
        }
        let certain = self.held.len() - self.longest_start_of_a_stop();
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Length of the longest end of the held text with which a stop string begins.
    fn longest_start_of_a_stop(&self) -> usize {
        let held = self.held.as_bytes();
        self.limits
            .stop
            .iter()
            .filter_map(|stop| {
                let most = stop.len().saturating_sub(1).min(held.len());
                (1..=most)
                    .rev()
                    .find(|len| held.ends_with(&stop.as_bytes()[..*len]))
            })
            .max()
            .unwrap_or(0)
    }

    /// The text of tokens without any yet, but for the bytes of a character that does not come.
    fn pending(&mut self) -> String {
        if self.read == self.window.len() {
            return String::new();
        }
        let whole = self.detokenizer.detokenize(&self.window);
        self.advance(whole.trim_end_matches(char::REPLACEMENT_CHARACTER))
    }

    /// The rest of the text: nothing follows it, so all of it is certain, except the bytes of a
    /// character that never came.
    fn flush(&mut self, finish: Finish) -> String {
        let decoded = self.pending();
        let mut text = self.release(&decoded);
        if self.finish.is_none() {
            self.finish = Some(finish);
            text += &std::mem::take(&mut self.held);
        }
        text
    }
}

#[cfg(test)]
mod tests;
