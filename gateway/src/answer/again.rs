//! An answer that is told again from its beginning, since it goes on elsewhere: what was given already
//! is held against it, and only the rest is new. Pure. [T-INF-13]

use tether_wire::infer::{CallDelta, Chunk};
use tether_wire::receipt::hash::Given;

/// How much of an answer there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) positions: u32,
    text: usize,
    /// Bytes of the arguments of each call.
    calls: Vec<usize>,
}

impl Amount {
    pub(super) fn add(&mut self, chunk: &Chunk) {
        let positions = chunk.positions().unwrap_or(u32::MAX);
        self.positions = self.positions.saturating_add(positions);
        self.text = self.text.saturating_add(chunk.text.len());
        for call in &chunk.calls {
            let index = call.index as usize;
            if index == self.calls.len() {
                self.calls.push(0);
            }
            if let Some(bytes) = self.calls.get_mut(index) {
                *bytes = bytes.saturating_add(call.arguments.len());
            }
        }
    }

    /// Whether everything of the other is in it.
    fn holds(&self, other: &Self) -> bool {
        let calls = || (self.calls.iter().zip(&other.calls)).all(|(own, other)| own >= other);
        self.positions >= other.positions
            && self.text >= other.text
            && self.calls.len() >= other.calls.len()
            && calls()
    }
}

/// The beginning of an answer, told again.
#[derive(Clone, Debug, Default)]
pub(super) struct Again {
    told: Amount,
    /// What of it was given already.
    seen: Given,
}

/// What a piece means that may have been given already.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// All of it was given.
    Known,
    /// All that was given is told by now; this is what is new of the piece.
    Rest(Chunk),
}

/// It is not the answer that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Differs;

impl Again {
    /// The position of the next token.
    pub(super) fn position(&self) -> u32 {
        self.told.positions
    }

    /// Takes the next piece.
    pub(super) fn take(
        &mut self,
        chunk: Chunk,
        amount: &Amount,
        given: &Given,
    ) -> Result<Told, Differs> {
        let (known, rest) = self.split(&chunk, amount)?;
        // What tokens stand for comes with them: where they were given, so was all of it.
        if known.positions() > Some(0) && rest.positions() == Some(0) && !is_empty(&rest) {
            return Err(Differs);
        }
        self.seen.take(&known);
        self.told.add(&chunk);
        if !self.told.holds(amount) {
            return if is_empty(&rest) {
                Ok(Told::Known)
            } else {
                // Text comes with its tokens and tokens with their text: one cannot be ahead.
                Err(Differs)
            };
        }
        let digests = |it: &Given| (it.text(), it.calls(), it.tokens());
        if digests(&self.seen) != digests(given) {
            return Err(Differs);
        }
        Ok(Told::Rest(rest))
    }

    /// What of a piece was given already, and what was not.
    fn split(&self, chunk: &Chunk, amount: &Amount) -> Result<(Chunk, Chunk), Differs> {
        let positions = amount.positions.saturating_sub(self.told.positions) as usize;
        let named = positions.min(chunk.tokens.len());
        let unnamed = u32::try_from(positions - named).unwrap_or(u32::MAX);
        let unnamed = unnamed.min(chunk.unnamed);
        let text = amount.text.saturating_sub(self.told.text);
        let text = text.min(chunk.text.len());
        if !chunk.text.is_char_boundary(text) {
            return Err(Differs);
        }
        let mut calls = (Vec::new(), Vec::new());
        let mut told = self.told.calls.clone();
        for call in &chunk.calls {
            let (known, rest) = split_call(call, &mut told, &amount.calls)?;
            calls.0.extend(known);
            calls.1.extend(rest);
        }
        let logprobs = named.min(chunk.logprobs.len());
        let known = Chunk {
            position: chunk.position,
            tokens: chunk.tokens[..named].to_vec(),
            text: chunk.text[..text].to_owned(),
            logprobs: Vec::new(),
            calls: calls.0,
            unnamed,
        };
        let rest = Chunk {
            position: chunk.position + known.positions().unwrap_or(u32::MAX),
            tokens: chunk.tokens[named..].to_vec(),
            text: chunk.text[text..].to_owned(),
            logprobs: chunk.logprobs[logprobs..].to_vec(),
            calls: calls.1,
            unnamed: chunk.unnamed - unnamed,
        };
        Ok((known, rest))
    }
}

/// The same of a call.
fn split_call(
    call: &CallDelta,
    told: &mut Vec<usize>,
    given: &[usize],
) -> Result<(Option<CallDelta>, Option<CallDelta>), Differs> {
    let index = call.index as usize;
    if index == told.len() {
        told.push(0);
    }
    let Some(told) = told.get_mut(index) else {
        return Err(Differs);
    };
    let Some(given) = given.get(index) else {
        return Ok((None, Some(call.clone())));
    };
    let at = given.saturating_sub(*told).min(call.arguments.len());
    *told = told.saturating_add(call.arguments.len());
    if !call.arguments.is_char_boundary(at) {
        return Err(Differs);
    }
    let (known, rest) = call.arguments.split_at(at);
    let known = CallDelta {
        arguments: known.to_owned(),
        ..call.clone()
    };
    let rest = (!rest.is_empty()).then(|| CallDelta {
        index: call.index,
        arguments: rest.to_owned(),
        ..CallDelta::default()
    });
    Ok((Some(known), rest))
}

fn is_empty(chunk: &Chunk) -> bool {
    chunk.positions() == Some(0) && chunk.text.is_empty() && chunk.calls.is_empty()
}

#[cfg(test)]
#[path = "again/tests.rs"]
mod tests;
