//! An order in the words of a server. Pure.
//!
//! What the server's kind has no word for is refused by its name; what it has one for is always
//! said, also where it is the default: servers have defaults of their own.

use super::dialect::{self, Knows};
use crate::config::ServerKind;
use crate::engine::protocol::Task;
use serde_json::{Map, Value, json};
use tether_wire::infer::{Format, Input, Message, Output, Sampling, Tool, ToolChoice};
use tether_wire::rpc::{Code, RpcError};

/// Tokens that penalties of llama.cpp look back at, in place of its 64.
const PENALTY_TOKENS: u32 = 131_072;

/// Which of the server's methods, relative to its URL, and what is sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Body {
    pub(super) path: &'static str,
    pub(super) json: Value,
}

/// A body being written.
struct Writer {
    kind: ServerKind,
    knows: Knows,
    map: Map<String, Value>,
}

/// The request for an answer of what the server calls `model`.
pub(super) fn body(kind: ServerKind, model: &str, task: &Task) -> Result<Body, RpcError> {
    if !task.transcript.is_empty() {
        // Another worker may go on; this one cannot say where, and is well. [T-INF-11]
        let why = "the server that runs this model cannot take up an answer that was begun";
        return Err(RpcError::new(Code::Conflict, why));
    }
    let mut writer = Writer {
        kind,
        knows: dialect::of(kind),
        map: Map::new(),
    };
    writer.say("model", json!(model));
    writer.say("stream", json!(true));
    writer.say("stream_options", json!({"include_usage": true}));
    let path = match &task.input {
        Input::Chat(messages) => {
            writer.say("messages", messages.iter().map(message).collect());
            "chat/completions"
        }
        Input::Text(text) => {
            writer.say("prompt", json!(text));
            "completions"
        }
    };
    writer.draw(&task.sampling)?;
    writer.tools(&task.output)?;
    writer.format(&task.output.format, &task.input)?;
    if kind == ServerKind::LlamaCpp {
        // What the model writes, as it writes it.
        writer.say("reasoning_format", json!("none"));
    }
    Ok(Body {
        path,
        json: Value::Object(writer.map),
    })
}

fn message(message: &Message) -> Value {
    let mut map = Map::new();
    map.insert("role".to_owned(), json!(message.role.as_str()));
    let is_call = message.content.is_empty() && !message.tool_calls.is_empty();
    let content = if is_call {
        Value::Null
    } else {
        json!(message.content)
    };
    map.insert("content".to_owned(), content);
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        map.insert("tool_calls".to_owned(), calls.collect());
    }
    for (name, value) in [
        ("tool_call_id", &message.tool_call_id),
        ("name", &message.name),
    ] {
        if let Some(value) = value {
            map.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(map)
}

impl Writer {
    fn say(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    fn unknown<T>(&self, param: &str, what: &str) -> Result<T, RpcError> {
        let kind = self.kind.as_str();
        Err(RpcError::new(
            Code::Invalid,
            format!(
                "{what} cannot be passed on to the {kind} server that runs this model; leave it out"
            ),
        )
        .with_param(param))
    }

    /// Says a parameter in the server's word for it; where it has none, the value has to be the one
    /// that changes nothing.
    fn number(
        &mut self,
        param: &str,
        word: Option<&str>,
        value: f32,
        none: f32,
    ) -> Result<(), RpcError> {
        match word {
            Some(word) => {
                self.say(word, number(value));
                Ok(())
            }
            None if value == none => Ok(()),
            None => self.unknown(param, param),
        }
    }

    fn draw(&mut self, sampling: &Sampling) -> Result<(), RpcError> {
        self.say("temperature", number(sampling.temperature));
        self.say("top_p", number(sampling.top_p));
        self.say("frequency_penalty", number(sampling.frequency_penalty));
        self.say("presence_penalty", number(sampling.presence_penalty));
        self.say("seed", json!(seed(sampling.seed.unwrap_or_default())));
        match sampling.max_tokens {
            Some(most) => self.say("max_tokens", json!(most)),
            // Its default for a text is 16 where nothing is said, and what fits where null is.
            None if self.kind == ServerKind::Vllm => self.say("max_tokens", Value::Null),
            None => {}
        }
        if !sampling.stop.is_empty() {
            self.say("stop", json!(sampling.stop));
        }
        if self.knows.top_k {
            self.say("top_k", json!(sampling.top_k));
        } else if sampling.top_k != 0 {
            return self.unknown("top_k", "top_k");
        }
        let min_p = self.knows.min_p.then_some("min_p");
        self.number("min_p", min_p, sampling.min_p, 0.0)?;
        let word = self.knows.repetition_penalty;
        self.number("repetition_penalty", word, sampling.repetition_penalty, 1.0)?;
        let penalties = [
            sampling.frequency_penalty,
            sampling.presence_penalty,
            sampling.repetition_penalty - 1.0,
        ];
        if self.kind == ServerKind::LlamaCpp && penalties.iter().any(|it| *it != 0.0) {
            self.say("repeat_last_n", json!(PENALTY_TOKENS));
        }
        if sampling.top_logprobs.is_some() {
            // They name tokens by ids, which servers do not tell.
            return self.unknown("logprobs", "logprobs");
        }
        if !sampling.logit_bias.is_empty() {
            if !self.knows.logit_bias {
                return self.unknown("logit_bias", "logit_bias");
            }
            let biases = sampling.logit_bias.iter();
            let biases = biases.map(|(token, bias)| (token.to_string(), number(*bias)));
            let biases = Value::Object(biases.collect());
            self.say("logit_bias", biases);
        }
        Ok(())
    }

    fn tools(&mut self, output: &Output) -> Result<(), RpcError> {
        if output.tools.is_empty() {
            return Ok(());
        }
        let mut tools = Vec::new();
        for tool in &output.tools {
            tools.push(self.tool(tool)?);
        }
        self.say("tools", Value::Array(tools));
        let choice = match &output.tool_choice {
            ToolChoice::Auto => json!("auto"),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
        };
        match &output.tool_choice {
            // Where it cannot be said, nothing means the same.
            ToolChoice::Auto if !self.knows.tool_choice => {}
            ToolChoice::Named(_) if !self.knows.named_tool => {
                return self.unknown("tool_choice", "a tool_choice that names a tool");
            }
            _ if !self.knows.tool_choice => return self.unknown("tool_choice", "this tool_choice"),
            _ => self.say("tool_choice", choice),
        }
        if self.knows.parallel_tool_calls {
            self.say("parallel_tool_calls", json!(output.parallel_tool_calls));
        } else if !output.parallel_tool_calls {
            return self.unknown("parallel_tool_calls", "parallel_tool_calls = false");
        }
        Ok(())
    }

    fn tool(&self, tool: &Tool) -> Result<Value, RpcError> {
        let mut function = Map::new();
        function.insert("name".to_owned(), json!(tool.name));
        if !tool.description.is_empty() {
            function.insert("description".to_owned(), json!(tool.description));
        }
        if !tool.parameters.is_empty() {
            let schema = json_of(&tool.parameters, "tools")?;
            function.insert("parameters".to_owned(), schema);
        }
        if tool.strict {
            if !self.knows.strict_tools {
                return self.unknown("tools", "strict tools");
            }
            function.insert("strict".to_owned(), json!(true));
        }
        Ok(json!({"type": "function", "function": function}))
    }

    fn format(&mut self, format: &Format, input: &Input) -> Result<(), RpcError> {
        let param = "response_format";
        let is_chat = matches!(input, Input::Chat(_));
        match format {
            Format::Text => {}
            Format::JsonObject if is_chat && self.knows.json_object => {
                self.say(param, json!({"type": "json_object"}));
            }
            Format::JsonSchema(schema) if is_chat => {
                let schema = json_of(schema, param)?;
                let named = json!({"name": "answer", "schema": schema, "strict": true});
                self.say(param, json!({"type": "json_schema", "json_schema": named}));
            }
            Format::Choice(choices) if self.knows.gbnf => {
                self.say("grammar", json!(dialect::gbnf_of_choices(choices)));
            }
            Format::JsonObject => return self.unknown(param, "a JSON object as response_format"),
            Format::JsonSchema(_) => return self.unknown(param, "a schema for a prompt"),
            Format::Regex(_) => return self.unknown(param, "a regular expression"),
            Format::Lark(_) => return self.unknown(param, "a Lark grammar"),
            Format::Choice(_) => return self.unknown(param, "a choice"),
        }
        Ok(())
    }
}

fn json_of(text: &str, param: &str) -> Result<Value, RpcError> {
    serde_json::from_str(text).map_err(|error| {
        RpcError::new(
            Code::Invalid,
            format!("{param} holds what is not JSON: {error}"),
        )
        .with_param(param)
    })
}

/// The shortest number that reads back as the same: 0.7, not 0.699999988079071.
fn number(value: f32) -> Value {
    let shortest = value.to_string().parse::<f64>();
    json!(shortest.unwrap_or_else(|_| f64::from(value)))
}

/// Seeds of servers have 31 or 32 bits, and the largest means "at random" to one of them.
fn seed(seed: u64) -> u32 {
    let folded = seed ^ (seed >> 31);
    u32::try_from(folded & 0x7fff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
