//! What users write is text: a special token that somebody types is none.
//!
//! A tokenizer finds special tokens wherever their spelling stands, so a user could end a turn and
//! begin one of another role. Only those that the template wrote count. What it wrote is seen in a
//! second rendering, whose messages have a private stand-in for each of their characters: whatever
//! the template does to them, of those no special token comes. Blanks stay, since templates trim.
//!
//! With the stand-ins taken back, the second rendering is the prompt in which each character is
//! known to be typed or not. Special tokens that have any typed part are cut, so that they are
//! none, and the pieces are made into tokens one by one. To the model, the text is what was typed;
//! at most with a blank within such a spelling, where a tokenizer puts one before each text.
//!
//! A template that looks at what is said, as those that drop the thoughts of earlier answers, makes
//! something else of stand-ins. Where its first rendering has the same special tokens one after the
//! other, nobody typed one, and that rendering is the prompt. Where not, the second one is: the
//! text as it was typed, without what the template would have done to it. A template that refuses
//! stand-ins refuses the messages.
//!
//! Messages of which no special token comes, which is nearly all, are made into tokens in one piece.
//! Special tokens of one character are not cut, nor those of blanks alone. A prompt that is a text
//! rather than messages is taken as it is: who sends one writes the template.

use crate::text::template::MAX_PROMPT_BYTES;
use crate::text::tokenizer::TextTokenizer;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tether_wire::infer::Message;

/// Keys of tools that templates look up: none of them is a special token.
const LOOKED_UP: [&str; 10] = [
    "name",
    "description",
    "parameters",
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "arguments",
    "strict",
];

/// Most bytes of a rendering with stand-ins, which have up to four times the bytes of what they
/// stand for.
pub(crate) const MAX_HIDDEN_BYTES: usize = 4 * MAX_PROMPT_BYTES;

/// The characters of planes 15 and 16, which have no meaning, and of which there are more than
/// Unicode has others.
fn private() -> impl Iterator<Item = char> {
    ('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}')
}

/// Messages whose characters have stand-ins, all but blanks.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) messages: Vec<Message>,
    /// What tools are, for the model, with stand-ins as well.
    pub(crate) tools: Vec<Value>,
    /// What each stand-in stands for.
    meant: HashMap<char, char>,
}

/// The messages leave no stand-ins over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the messages have too many different characters, or too many private ones")]
pub(crate) struct TooMany;

impl Hidden {
    /// With stand-ins that occur neither in the messages nor in what the template made of them.
    pub(crate) fn new(
        messages: &[Message],
        tools: &[Value],
        rendered: &str,
    ) -> Result<Self, TooMany> {
        let mut texts: Vec<&str> = messages.iter().flat_map(texts_of).collect();
        tools.iter().for_each(|tool| strings(tool, &mut texts));
        let taken: HashSet<char> = texts
            .into_iter()
            .chain([rendered])
            .flat_map(str::chars)
            .filter(|char| *char >= '\u{f0000}')
            .collect();
        let mut free = private().filter(|char| !taken.contains(char));
        let mut stand_ins = HashMap::new();
        let mut hide = |char: char| {
            if char.is_whitespace() {
                return Ok(char);
            }
            if let Some(stand_in) = stand_ins.get(&char) {
                return Ok(*stand_in);
            }
            let stand_in = free.next().ok_or(TooMany)?;
            stand_ins.insert(char, stand_in);
            Ok(stand_in)
        };
        let mut text = |text: &str| text.chars().map(&mut hide).collect::<Result<String, _>>();
        let messages = messages
            .iter()
            .map(|message| {
                let mut message = message.clone();
                message.content = text(&message.content)?;
                for call in &mut message.tool_calls {
                    call.name = text(&call.name)?;
                    call.arguments = match serde_json::from_str(&call.arguments) {
                        Ok(mut arguments) => {
                            replace(&mut arguments, &mut text)?;
                            Value::to_string(&arguments)
                        }
                        Err(_) => text(&call.arguments)?,
                    };
                }
                if let Some(name) = &mut message.name {
                    *name = text(name)?;
                }
                Ok(message)
            })
            .collect::<Result<_, _>>()?;
        let mut tools = tools.to_vec();
        for tool in &mut tools {
            replace(&mut tool["function"], &mut text)?;
        }
        let meant = stand_ins.into_iter().map(|(char, it)| (it, char)).collect();
        Ok(Self {
            messages,
            tools,
            meant,
        })
    }

    /// What a rendering of these messages says, and which of it was typed.
    pub(crate) fn reveal(&self, rendered: &str) -> Revealed {
        let mut text = String::with_capacity(rendered.len());
        let mut typed: Vec<Range<usize>> = Vec::new();
        for char in rendered.chars() {
            let start = text.len();
            let Some(meant) = self.meant.get(&char) else {
                text.push(char);
                continue;
            };
            text.push(*meant);
            match typed.last_mut() {
                Some(last) if last.end == start => last.end = text.len(),
                _ => typed.push(start..text.len()),
            }
        }
        Revealed { text, typed }
    }
}

/// What was typed in a message. Ids are compared by templates, and stay.
fn texts_of(message: &Message) -> Vec<&str> {
    let calls = message.tool_calls.iter();
    let mut texts: Vec<&str> = calls
        .flat_map(|call| [call.name.as_str(), call.arguments.as_str()])
        .collect();
    texts.push(&message.content);
    texts.extend(message.name.as_deref());
    texts
}

/// Every text within a value, keys too.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                found.push(key);
                strings(value, found);
            }
        }
        _ => {}
    }
}

/// Replaces every text within a value. Keys are replaced too, except those that templates look up.
fn replace(
    value: &mut Value,
    text: &mut impl FnMut(&str) -> Result<String, TooMany>,
) -> Result<(), TooMany> {
    match value {
        Value::String(it) => *it = text(it)?,
        Value::Array(values) => {
            for value in values {
                replace(value, text)?;
            }
        }
        Value::Object(fields) => {
            for (key, mut value) in std::mem::take(fields) {
                replace(&mut value, text)?;
                let key = if LOOKED_UP.contains(&key.as_str()) {
                    key
                } else {
                    text(&key)?
                };
                fields.insert(key, value);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A rendered prompt of which it is known what was typed.
#[derive(Debug)]
pub(crate) struct Revealed {
    pub(crate) text: String,
    /// Where it was, without blanks; ascending and apart.
    typed: Vec<Range<usize>>,
}

impl Revealed {
    /// The text in pieces, each of which is made into tokens by itself.
    pub(crate) fn pieces(&self, tokenizer: &TextTokenizer) -> Vec<&str> {
        self.take_apart(|text| {
            let found = tokenizer.specials(text).into_iter();
            found.map(|(_, at)| at).collect()
        })
    }

    /// Cuts the text until no piece of it holds a special token that was typed in any part; what is
    /// left of one may be another. `specials` says where a text has some, ascending.
    fn take_apart(&self, specials: impl Fn(&str) -> Vec<Range<usize>>) -> Vec<&str> {
        let mut pieces = Vec::new();
        // What comes first in the text is on top; each with the place where it begins.
        let mut uncut = vec![(0, self.text.as_str())];
        while let Some((start, mut rest)) = uncut.pop() {
            let found = specials(rest).into_iter();
            let cuts: Vec<usize> = found
                .filter_map(|at| self.cut(start + at.start..start + at.end))
                .collect();
            if cuts.is_empty() {
                pieces.push(rest);
                continue;
            }
            for cut in cuts.into_iter().rev() {
                let (before, after) = rest.split_at(cut - start);
                uncut.push((cut, after));
                rest = before;
            }
            uncut.push((start, rest));
        }
        pieces
    }

    /// Where to cut a special token: where what was typed begins or ends within it, so that one of
    /// the template beside it stays whole, or else behind its first character. Nowhere, when
    /// nothing of it was typed.
    fn cut(&self, found: Range<usize>) -> Option<usize> {
        let at = self.typed.partition_point(|run| run.end <= found.start);
        let run = self.typed.get(at).filter(|run| run.start < found.end)?;
        if run.start > found.start {
            return Some(run.start);
        }
        if run.end < found.end {
            return Some(run.end);
        }
        let first = self.text.get(found.clone())?.chars().next()?.len_utf8();
        (first < found.len()).then_some(found.start + first)
    }
}

#[cfg(test)]
mod tests;
