//! The text side of one model: what goes in as a prompt, and how much may come out.

use crate::engine::protocol::Task;
use crate::fit::{check_bytes, check_input, exceeded, param};
use crate::text::answering::Answering;
use crate::text::calls::{self, CallReader, Family};
use crate::text::fold::{Fold, Limits};
use crate::text::grammar::{Grammars, Source, schema};
use crate::text::literal::{Hidden, MAX_HIDDEN_BYTES};
use crate::text::template::{ChatTemplate, MAX_PROMPT_BYTES, TemplateError};
use crate::text::tokenizer::{TextError, TextTokenizer, read_bounded, read_json, special_tokens};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tether_wire::infer::{Input, Message, Output, Sampling, Speaker, Tool};
use tether_wire::rpc::{Code, RpcError};

/// Largest file with a template.
const MAX_TEMPLATE_FILE_BYTES: u64 = 2 * 1024 * 1024;

/// Most characters of a template's own reason that are passed on. It names types, and words of the
/// template.
const MAX_REASON: usize = 200;

/// Tokenizer and template of a model.
#[derive(Debug)]
pub struct TextModel {
    tokenizer: Arc<TextTokenizer>,
    template: Option<ChatTemplate>,
    /// How the model writes calls of tools.
    family: Option<Family>,
    grammars: Grammars,
    context_tokens: u32,
}

/// A prompt that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens; at least one, and fewer than the context holds.
    pub tokens: Vec<u32>,
    /// Most tokens of the answer: what was asked for, or what the context has left. At least 1.
    pub max_tokens: u32,
}

impl Prompt {
    /// How many tokens it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// Never: an empty prompt is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl TextModel {
    /// Reads the text files of a model's folder.
    ///
    /// # Errors
    /// In words for whoever packed the model.
    pub fn load(root: &Path, tokenizer: &str, context_tokens: u32) -> Result<Self, String> {
        let template = chat_template(root).map_err(|error| error.to_string())?;
        let config = read_json(&root.join("tokenizer_config.json")).map_err(|e| e.to_string())?;
        let family = template.as_deref().and_then(Family::of_template);
        let template = template
            .map(|source| ChatTemplate::new(source, special_tokens(&config)))
            .transpose()
            .map_err(|error| error.to_string())?;
        let tokenizer = TextTokenizer::load(root, tokenizer).map_err(|error| error.to_string())?;
        let tokenizer = Arc::new(tokenizer);
        let spelled = family.map(|family| family.spelled(&tokenizer));
        Ok(Self {
            grammars: Grammars::new(Arc::clone(&tokenizer), spelled.unwrap_or_default()),
            tokenizer,
            template,
            family,
            context_tokens,
        })
    }

    /// Most tokens of prompt and answer together.
    #[must_use]
    pub fn context_tokens(&self) -> u32 {
        self.context_tokens
    }

    /// With a smaller context, where the weights allow less than the manifest says.
    #[must_use]
    pub fn with_context_at_most(mut self, context_tokens: u32) -> Self {
        self.context_tokens = self.context_tokens.min(context_tokens);
        self
    }

    /// Number of tokens that the model may choose from.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary()
    }

    /// Most bytes of text that one token stands for.
    #[must_use]
    pub fn max_token_bytes(&self) -> u32 {
        self.tokenizer.max_token_bytes()
    }

    /// Renders and counts a prompt. One that cannot fit by its bytes alone is not counted.
    ///
    /// # Errors
    /// [`Code::Invalid`] with the field that is wrong.
    pub fn prompt(&self, input: &Input, max_tokens: Option<u32>) -> Result<Prompt, RpcError> {
        self.prompt_for(input, &Output::default(), max_tokens)
    }

    /// The same with what the answer must be: the model is told of the tools that it may call.
    ///
    /// # Errors
    /// As [`TextModel::prompt`].
    pub fn prompt_for(
        &self,
        input: &Input,
        output: &Output,
        max_tokens: Option<u32>,
    ) -> Result<Prompt, RpcError> {
        let param = param(input);
        check_input(input, self.context_tokens, self.max_token_bytes())?;
        let tokens = match input {
            Input::Chat(messages) => {
                let template = self.template.as_ref().ok_or_else(|| {
                    invalid(
                        "messages",
                        "this model has no chat template; send it a text prompt",
                    )
                })?;
                self.check_tools(messages, output)?;
                let tools = tools_json(output)?;
                self.chat(template, messages, &tools)
            }
            Input::Text(text) => self.tokens(&[text.as_str()], true, param),
        }?;
        fit(tokens, max_tokens, self.context_tokens, param)
    }

    /// The tokens of a chat, of which only those that the template wrote are special.
    fn chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        tools: &[Value],
    ) -> Result<Vec<u32>, RpcError> {
        let param = "messages";
        let fits = |text: &str| {
            check_bytes(
                text.len(),
                self.context_tokens,
                self.max_token_bytes(),
                param,
            )
        };
        let failed = |error| unrendered(template, error, param);
        let plain = template.render_within(messages, tools, MAX_PROMPT_BYTES);
        let plain = plain.map_err(failed)?;
        // Looking for special tokens takes time as counting does.
        fits(&plain)?;
        let hidden = Hidden::new(messages, tools, &plain);
        let hidden = hidden.map_err(|error| invalid(param, error.to_string()))?;
        let rendered = template
            .render_within(&hidden.messages, &hidden.tools, MAX_HIDDEN_BYTES)
            .map_err(failed)?;
        let revealed = hidden.reveal(&rendered);
        if revealed.text != plain && self.specials(&plain) == self.specials(&rendered) {
            return self.tokens(&[&plain], false, param);
        }
        fits(&revealed.text)?;
        self.tokens(&revealed.pieces(&self.tokenizer), false, param)
    }

    fn specials(&self, text: &str) -> Vec<u32> {
        let found = self.tokenizer.specials(text).into_iter();
        found.map(|(id, _)| id).collect()
    }

    fn tokens(&self, pieces: &[&str], special: bool, param: &str) -> Result<Vec<u32>, RpcError> {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        check_bytes(bytes, self.context_tokens, self.max_token_bytes(), param)?;
        let mut tokens = Vec::new();
        for piece in pieces {
            let more = self.tokenizer.encode(piece, special);
            tokens.extend(more.map_err(|error| RpcError::new(Code::Internal, error))?);
        }
        Ok(tokens)
    }

    /// Tools are refused where the model does not know what they are.
    fn check_tools(&self, messages: &[Message], output: &Output) -> Result<(), RpcError> {
        if self.family.is_some() {
            return Ok(());
        }
        let why = "this model's chat template knows no tools, or writes calls in a way that is not \
                   known here";
        if !output.callable().is_empty() {
            return Err(invalid("tools", why));
        }
        let is_of_tools =
            |message: &Message| message.role == Speaker::Tool || !message.tool_calls.is_empty();
        if messages.iter().any(is_of_tools) {
            return Err(invalid("messages", why));
        }
        Ok(())
    }

    /// A bias for what is no token of the model would change nothing, and nobody would know.
    fn check_bias(&self, sampling: &Sampling) -> Result<(), RpcError> {
        let tokens = self.vocabulary();
        let is_none = |id: &&u32| **id as usize >= tokens;
        match sampling.logit_bias.keys().find(is_none) {
            None => Ok(()),
            Some(id) => Err(invalid(
                "logit_bias",
                format!(
                    "logit_bias names the token {id}, and the model has the tokens 0 to {}",
                    tokens.saturating_sub(1)
                ),
            )),
        }
    }

    /// The answer that a task asks for, up to the end of what was given already. Compiles a grammar
    /// where one is needed, which takes a while.
    ///
    /// # Errors
    /// [`Code::Invalid`] with the field that is wrong.
    pub fn answer(
        &self,
        prompt: &Prompt,
        task: &Task,
    ) -> Result<Answering<Arc<TextTokenizer>>, RpcError> {
        self.check_bias(&task.sampling)?;
        let output = &task.output;
        let calls = CallReader::new(self.family, output, task.correlation);
        let spelled = match self.family {
            Some(family) if calls.is_some() => family.spelled(&self.tokenizer),
            _ => BTreeMap::new(),
        };
        let (source, param) = match self.family {
            Some(family) if calls::must_follow(output) => {
                (calls::grammar(family, output).map(Some), "tools")
            }
            _ => (Source::of(&output.format), "response_format"),
        };
        let grammar = source
            .and_then(|source| source.map(|it| self.grammars.compile(it)).transpose())
            .map_err(|error| invalid(param, format!("{param} cannot be followed: {error}")))?;
        // An answer that must call has no text beside its calls for a stop string to end.
        let stop = task.sampling.stop.iter();
        let stop = stop.filter(|stop| !stop.is_empty() && !output.must_call());
        let limits = Limits {
            eos: self.tokenizer.eos().clone(),
            max_tokens: prompt.max_tokens,
            stop: stop.cloned().collect(),
            spelled,
        };
        let fold = Fold::new(Arc::clone(&self.tokenizer), limits).with_calls(calls);
        let mut answering = Answering::new(
            fold,
            task.sampling.clone(),
            &prompt.tokens,
            self.tokenizer.eos().clone(),
            self.vocabulary(),
        )
        .with_grammar(grammar, param);
        answering.take_transcript(&task.transcript)?;
        Ok(answering)
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> Arc<TextTokenizer> {
        Arc::clone(&self.tokenizer)
    }
}

/// The tools that may be called, in OpenAI's shape, which is that of templates.
fn tools_json(output: &Output) -> Result<Vec<Value>, RpcError> {
    let function = |tool: &Tool| {
        let parameters = if tool.parameters.is_empty() {
            json!({"type": "object", "properties": {}})
        } else {
            let parameters = schema(&tool.parameters);
            parameters
                .map_err(|error| invalid("tools", format!("of the tool {}: {error}", tool.name)))?
        };
        Ok(json!({
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters,
            },
        }))
    };
    output.callable().iter().map(function).collect()
}

/// Whose fault it is that a chat cannot be rendered. What is in a message, such as the arguments of a
/// call that are a list, can make a template fail at every worker of the model: that is the request's.
/// One that fails at the plainest chat is the model's.
fn unrendered(template: &ChatTemplate, error: TemplateError, param: &str) -> RpcError {
    let plainest = [Message::new(Speaker::User, "Hello")];
    match error {
        TemplateError::Refused(_) => invalid(param, error.to_string()),
        TemplateError::Failed(why)
            if !matches!(
                template.render(&plainest),
                Err(TemplateError::Failed(_) | TemplateError::Unusable(_))
            ) =>
        {
            let why: String = why.chars().take(MAX_REASON).collect();
            let told = "the model's chat template could not render these messages";
            invalid(param, format!("{told}: {why}"))
        }
        _ => RpcError::new(Code::Internal, error.to_string()),
    }
}

fn invalid(param: &str, message: impl Into<String>) -> RpcError {
    RpcError::new(Code::Invalid, message).with_param(param)
}

/// Checks the prompt's length, and leaves the answer at most the rest of the context: an engine that
/// runs over its context while others are in the batch takes them down with it.
pub(crate) fn fit(
    tokens: Vec<u32>,
    max_tokens: Option<u32>,
    context_tokens: u32,
    param: &str,
) -> Result<Prompt, RpcError> {
    if tokens.is_empty() {
        return Err(invalid(param, "the prompt is empty"));
    }
    let len = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    let left = context_tokens.saturating_sub(len);
    if left == 0 {
        return Err(exceeded(param, context_tokens, &len.to_string()));
    }
    Ok(Prompt {
        tokens,
        max_tokens: max_tokens.unwrap_or(left).clamp(1, left),
    })
}

/// The model's chat template: a file of its own comes first, as in `transformers`.
fn chat_template(root: &Path) -> Result<Option<String>, TextError> {
    let file = root.join("chat_template.jinja");
    if let Some(bytes) = read_bounded(&file, MAX_TEMPLATE_FILE_BYTES)? {
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    for file in ["chat_template.json", "tokenizer_config.json"] {
        let config = read_json(&root.join(file))?;
        if let Some(template) = template_in(&config["chat_template"]) {
            return Ok(Some(template));
        }
    }
    Ok(None)
}

/// One template, or several by name.
fn template_in(value: &Value) -> Option<String> {
    match value {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
