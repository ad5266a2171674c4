//! Finds calls in the text of an answer, character by character.

use super::Family;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use tether_wire::CorrelationId;
use tether_wire::infer::{CallDelta, Output, ToolChoice, call_id};

/// Most bytes of a call; a longer one is text. Far below what one event may hold.
const MAX_CALL_BYTES: usize = 64 * 1024;

/// What became of some text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Text that is no part of a call.
    pub(crate) text: String,
    /// Calls that are whole.
    pub(crate) calls: Vec<CallDelta>,
}

/// Reads the text of one answer.
#[derive(Clone, Debug)]
pub(crate) struct CallReader {
    family: Family,
    names: BTreeSet<String>,
    correlation: CorrelationId,
    /// Whether the answer ends with its first call.
    is_single: bool,
    state: State,
    /// What may still become a call, and is text when it does not.
    held: String,
    /// Where in `held` the object begins.
    object: usize,
    scan: Scan,
    /// Blanks behind a call, which are text only when text follows.
    blanks: String,
    /// Whether text followed the last call.
    text_followed: bool,
    made: u32,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Text, or the beginning of what opens a call.
    Text,
    /// A list or an object must come.
    Before,
    /// Within an object.
    Object,
    /// Behind a whole call: what closes it, or another.
    After,
    /// Nothing can be a call any more.
    Over,
}

/// Where the object ends: braces outside of strings.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the object is whole with this character.
    fn take(&mut self, char: char) -> bool {
        if self.in_string {
            match char {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match char {
            '"' => self.in_string = true,
            '{' => self.depth += 1,
            '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

/// A call as models write it.
#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: &'a RawValue,
}

impl CallReader {
    /// For an answer to a request with these tools; nothing where none may be called.
    pub(crate) fn new(
        family: Option<Family>,
        output: &Output,
        correlation: CorrelationId,
    ) -> Option<Self> {
        let tools = output.callable();
        let family = family.filter(|_| !tools.is_empty())?;
        let named = match &output.tool_choice {
            ToolChoice::Named(name) => Some(name),
            _ => None,
        };
        let state = match family {
            Family::Llama => State::Before,
            Family::Hermes | Family::Mistral => State::Text,
        };
        Some(Self {
            family,
            names: tools
                .iter()
                .map(|tool| &tool.name)
                .filter(|name| named.is_none_or(|it| it == *name))
                .cloned()
                .collect(),
            correlation,
            is_single: !output.parallel_tool_calls || named.is_some(),
            state,
            held: String::new(),
            object: 0,
            scan: Scan::default(),
            blanks: String::new(),
            text_followed: true,
            made: 0,
            ended: false,
        })
    }

    /// How many calls were whole so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Whether the answer is over: it may hold one call only, and does.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes more text.
    pub(crate) fn push(&mut self, text: &str) -> Read {
        let mut read = Read::default();
        for char in text.chars() {
            if self.ended {
                break;
            }
            self.take(char, &mut read);
        }
        read
    }

    /// The answer is over: what is held was text. Blanks behind the last call are nothing.
    pub(crate) fn finish(&mut self) -> Read {
        let mut read = Read::default();
        // Behind a call, what closes it may be missing or cut.
        if self.state != State::After {
            self.say_held(&mut read);
        }
        self.state = State::Over;
        read
    }

    fn take(&mut self, char: char, read: &mut Read) {
        self.held.push(char);
        match self.state {
            State::Over => self.say_held(read),
            State::Text => self.seek(read),
            State::Before => match char {
                '{' => {
                    self.object = self.held.len() - 1;
                    self.scan = Scan::default();
                    self.scan.take(char);
                    self.state = State::Object;
                }
                '[' if self.family == Family::Mistral && self.made == 0 => {}
                _ if char.is_whitespace() && self.held.len() <= MAX_CALL_BYTES => {}
                _ => self.was_text(read),
            },
            State::Object => {
                if self.scan.take(char) {
                    match self.whole() {
                        Some(call) => {
                            read.calls.push(call);
                            self.held.clear();
                            self.state = State::After;
                            self.ended = self.is_single;
                        }
                        None => self.was_text(read),
                    }
                } else if self.held.len() > MAX_CALL_BYTES {
                    self.was_text(read);
                }
            }
            State::After => self.after(char, read),
        }
    }

    /// In text: holds back what may open a call, and gives the rest.
    fn seek(&mut self, read: &mut Read) {
        let opening = self.family.opening().unwrap_or_default();
        while !self.held.is_empty() && !opening.starts_with(&self.held) {
            let first = self.held.remove(0);
            self.say(first, read);
        }
        if !opening.is_empty() && self.held == opening {
            self.state = State::Before;
        }
    }

    fn after(&mut self, char: char, read: &mut Read) {
        // One that follows another is looked at alone: all of them, each time, would be too much.
        let before = self.held.chars().rev().nth(1);
        let is_blank = char.is_whitespace() && before.is_none_or(char::is_whitespace);
        match (self.family, char) {
            _ if self.held.len() > MAX_CALL_BYTES => self.was_text(read),
            _ if is_blank => {}
            (Family::Hermes, _) => {
                let closing = self.family.closing().unwrap_or_default();
                let seen = self.held.trim_start();
                if seen == closing {
                    self.held.clear();
                    self.state = State::Text;
                } else if !closing.starts_with(seen) {
                    self.was_text(read);
                }
            }
            (Family::Llama, ';') | (Family::Mistral, ',') => {
                self.held.clear();
                self.state = State::Before;
            }
            (Family::Mistral, ']') => {
                self.held.clear();
                self.state = State::Over;
            }
            _ => self.was_text(read),
        }
    }

    /// The call that is held, if it is one.
    fn whole(&mut self) -> Option<CallDelta> {
        let object = self.held.get(self.object..)?;
        let written: Written<'_> = serde_json::from_str(object).ok()?;
        let arguments = written.arguments.get();
        if !self.names.contains(&written.name) || !arguments.starts_with('{') {
            return None;
        }
        let index = self.made;
        self.made += 1;
        self.blanks.clear();
        self.text_followed = false;
        Some(CallDelta {
            index,
            id: Some(call_id(&self.correlation, index)),
            name: Some(written.name),
            arguments: arguments.to_owned(),
        })
    }

    /// It was none: what is held is text. Only its last character can be the first of what opens a
    /// call: within what opens or closes one, and within a broken object, none is looked for.
    fn was_text(&mut self, read: &mut Read) {
        let last = self.held.pop();
        self.say_held(read);
        if self.family.opening().is_none() {
            self.state = State::Over;
        } else {
            self.state = State::Text;
        }
        if let Some(last) = last {
            self.take(last, read);
        }
    }

    fn say_held(&mut self, read: &mut Read) {
        for char in std::mem::take(&mut self.held).chars() {
            self.say(char, read);
        }
    }

    /// A character of text. Blanks behind a call wait for text that follows them.
    fn say(&mut self, char: char, read: &mut Read) {
        if char.is_whitespace() && !self.text_followed {
            self.blanks.push(char);
            return;
        }
        self.text_followed = true;
        read.text += &std::mem::take(&mut self.blanks);
        read.text.push(char);
    }
}
