//! How many tokens a prompt can have at most, by what was asked. Pure.
//!
//! Tenants are billed by counts that workers and servers say, so that a count is believed only where
//! it can be true. [T-INF-8]

use super::{Format, Input, Message, Output, Speaker};

/// Tokens that a template may put around each message, and each tool.
const PER_MESSAGE: u64 = 64;
/// Tokens that a template may put before them all: its own instructions.
const PREAMBLE: u64 = 4_096;
/// Bytes that a template may make of one byte of what it writes anew, as JSON: it escapes and indents.
const PER_JSON_BYTE: u64 = 8;

/// The size of what a model is given, before a template makes a prompt of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptSize {
    /// Bytes that a template copies: what people and the model said.
    text_bytes: u64,
    /// Bytes that it may write anew: tools, their calls and results, a schema.
    json_bytes: u64,
    /// Messages and tools.
    parts: u64,
}

impl PromptSize {
    /// Of a request.
    #[must_use]
    pub fn of(input: &Input, output: &Output) -> Self {
        let mut size = Self::default();
        match input {
            Input::Text(text) => {
                size.text_bytes = len(text);
                size.parts = 1;
            }
            Input::Chat(messages) => messages.iter().for_each(|it| size.add(it)),
        }
        for tool in &output.tools {
            size.json_bytes += len(&tool.name) + len(&tool.description) + len(&tool.parameters);
            size.parts += 1;
        }
        if let Format::JsonSchema(text) = &output.format {
            size.json_bytes += len(text);
        }
        size
    }

    fn add(&mut self, message: &Message) {
        self.parts += 1;
        let names = [&message.tool_call_id, &message.name];
        self.json_bytes += names.into_iter().flatten().map(len).sum::<u64>();
        for call in &message.tool_calls {
            self.json_bytes += len(&call.id) + len(&call.name) + len(&call.arguments);
            self.parts += 1;
        }
        if message.role == Speaker::Tool {
            self.json_bytes += len(&message.content);
        } else {
            self.text_bytes += len(&message.content);
        }
    }

    /// Bytes of all that was asked.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.text_bytes + self.json_bytes
    }

    /// Most tokens that a prompt of it can have: one for each byte, and what templates add.
    #[must_use]
    pub fn most_tokens(&self) -> u32 {
        let bytes = self.text_bytes + self.json_bytes * PER_JSON_BYTE;
        let most = bytes + self.parts * PER_MESSAGE + PREAMBLE;
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

#[expect(
    clippy::ptr_arg,
    reason = "passed where a reference to a String is given"
)]
fn len(text: &String) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Tool, ToolCall};
    use super::*;

    fn most(input: &Input) -> u32 {
        PromptSize::of(input, &Output::default()).most_tokens()
    }

    #[test]
    fn a_prompt_has_no_more_tokens_than_bytes_and_what_templates_add() {
        assert_eq!(most(&Input::Text("x".repeat(40))), 40 + 64 + 4_096);
        let said = Message::new(Speaker::User, "hello");
        assert_eq!(most(&Input::Chat(vec![said; 3])), 3 * (5 + 64) + 4_096);
    }

    #[test]
    fn what_a_template_writes_anew_may_grow() {
        let mut asks = Message::new(Speaker::Assistant, "");
        asks.tool_calls.push(ToolCall {
            id: "1".to_owned(),
            name: "say".to_owned(),
            arguments: "{}".to_owned(),
        });
        let mut told = Message::new(Speaker::Tool, "<>");
        told.tool_call_id = Some("1".to_owned());
        let output = Output {
            tools: vec![Tool {
                name: "say".to_owned(),
                description: "d".to_owned(),
                parameters: "{}".to_owned(),
                strict: false,
            }],
            format: Format::JsonSchema("{}".to_owned()),
            ..Output::default()
        };
        let size = PromptSize::of(&Input::Chat(vec![asks, told]), &output);
        let json = 1 + 3 + 2 + 2 + 1 + 3 + 1 + 2 + 2;
        assert_eq!(size.bytes(), json);
        assert_eq!(u64::from(size.most_tokens()), 8 * json + 4 * 64 + 4_096);
    }
}
