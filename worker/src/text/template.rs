//! Renders a chat into the text of a prompt, by the model's own Jinja template.
//!
//! The environment is the one of `transformers`' `apply_chat_template`: `trim_blocks`,
//! `lstrip_blocks`, Python's methods, `raise_exception`, `tojson` in Python's spelling. Deliberately
//! absent is `strftime_now`: with it, a prompt would depend on the day, and an answer could not be
//! computed again; templates ask whether it is defined.
//!
//! A template is a program by whoever made the model: it has a budget of steps, and its output a limit.

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;
use std::io::{self, Write};
use tether_wire::infer::Message;

/// Longest template.
pub const MAX_TEMPLATE_BYTES: usize = 1024 * 1024;
/// Most bytes of a rendered prompt; far more than any context holds.
pub const MAX_PROMPT_BYTES: usize = 16 * 1024 * 1024;
/// Steps that every rendering may take.
const FUEL: u64 = 1_000_000;
/// Further steps for each message.
const FUEL_PER_MESSAGE: u64 = 20_000;

/// Why a chat cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is wrong.
    #[error("the model's chat template is not usable: {0}")]
    Unusable(String),
    /// The template refuses these messages, in its own words.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// The template failed, or went over a limit.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
}

/// Special tokens that templates name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<String>,
    /// Ends a sequence.
    pub eos: Option<String>,
    /// Fills a sequence up.
    pub pad: Option<String>,
    /// Stands for what is not in the vocabulary.
    pub unk: Option<String>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

const NAME: &str = "chat";

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is too long or not Jinja.
    pub fn new(source: String, special: SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::Unusable(format!(
                "it has {} bytes, more than {MAX_TEMPLATE_BYTES}",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| TemplateError::Unusable(error.to_string()))?;
        Ok(Self {
            environment,
            special,
        })
    }

    /// The text of the prompt, which ends where the assistant begins to speak.
    ///
    /// # Errors
    /// When the template refuses the messages, fails, or goes over a limit.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        self.render_within(messages, &[], MAX_PROMPT_BYTES)
    }

    /// The same with another bound of the text.
    pub(crate) fn render_within(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        max_bytes: usize,
    ) -> Result<String, TemplateError> {
        let steps = messages.len() + tools.len();
        let messages: Vec<Value> = messages.iter().map(message_value).collect();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * steps as u64));
        let template = environment
            .get_template(NAME)
            .map_err(|error| TemplateError::Failed(error.to_string()))?;
        // Not there at all without tools: templates ask in several ways whether there are some.
        let tools = if tools.is_empty() {
            Value::UNDEFINED
        } else {
            Value::from_serialize(tools)
        };
        let values = context! {
            messages,
            tools,
            add_generation_prompt => true,
            bos_token => self.special.bos.as_deref().unwrap_or_default(),
            eos_token => self.special.eos.as_deref().unwrap_or_default(),
            pad_token => self.special.pad.as_deref().unwrap_or_default(),
            unk_token => self.special.unk.as_deref().unwrap_or_default(),
        };
        let mut prompt = Limited {
            text: Vec::new(),
            max_bytes,
        };
        template
            .render_captured_to(values, &mut prompt)
            .map_err(|error| failure(&error))?;
        String::from_utf8(prompt.text).map_err(|error| TemplateError::Failed(error.to_string()))
    }
}

/// As OpenAI writes messages, but for the arguments of calls, which templates want as an object.
fn message_value(message: &Message) -> Value {
    let mut fields = std::collections::BTreeMap::from([
        ("role", Value::from(message.role.as_str())),
        ("content", Value::from(message.content.as_str())),
    ]);
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments)
                .unwrap_or_else(|_| call.arguments.as_str().into());
            let arguments = Value::from_serialize(arguments);
            let function = context! { name => call.name, arguments };
            context! { id => call.id, type => "function", function }
        });
        fields.insert("tool_calls", calls.collect());
    }
    for (name, value) in [
        ("tool_call_id", &message.tool_call_id),
        ("name", &message.name),
    ] {
        if let Some(value) = value {
            fields.insert(name, Value::from(value.as_str()));
        }
    }
    Value::from_serialize(fields)
}

fn failure(error: &Error) -> TemplateError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(why)) = cause.downcast_ref() {
            return TemplateError::Refused(why.clone());
        }
        source = cause.source();
    }
    TemplateError::Failed(error.to_string())
}

fn raise_exception(why: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(why)))
}

/// `json.dumps(x, ensure_ascii=False, indent=…)`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let wrong =
        |error| Error::new(ErrorKind::BadSerialization, "cannot be JSON").with_source(error);
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    match indent {
        Some(indent) => {
            let blanks = " ".repeat(indent.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, formatter,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, Python,
        )),
    }
    .map_err(wrong)?;
    Ok(Value::from_safe_string(
        String::from_utf8_lossy(&out).into_owned(),
    ))
}

/// A blank after `,` and `:`, as Python writes.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Takes so many bytes at most.
struct Limited {
    text: Vec<u8>,
    max_bytes: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.max_bytes {
            return Err(io::Error::other(format!(
                "the prompt has more than {} bytes",
                self.max_bytes
            )));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::Speaker;

    fn say(role: Speaker, content: &str) -> Message {
        Message::new(role, content)
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
        let special = SpecialTokens {
            bos: Some("<s>".to_owned()),
            eos: Some("</s>".to_owned()),
            ..SpecialTokens::default()
        };
        ChatTemplate::new(source.to_owned(), special)?.render(messages)
    }

    #[test]
    fn blocks_are_trimmed_as_transformers_does() {
        let source = "{{ bos_token }}\n    {% for m in messages %}\n{{ m['role'] }}: {{ m.content }}{{ eos_token }}\n    {% endfor %}\n{% if add_generation_prompt %}assistant:{% endif %}\n";
        let messages = [say(Speaker::User, "hi"), say(Speaker::Assistant, "ho")];
        assert_eq!(
            render(source, &messages).expect("renders"),
            "<s>\nuser: hi</s>\nassistant: ho</s>\nassistant:"
        );
    }

    #[test]
    fn methods_and_loops_of_python_work() {
        let source = "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}{%- set ns.n = ns.n + 1 -%}{{ m.content.strip().split(' ')[-1].upper() }}{%- if not loop.last %}|{% endif -%}{%- endfor -%}{{ ns.n }}{{ strftime_now is defined }}";
        let messages = [say(Speaker::System, "x"), say(Speaker::User, " a b ")];
        assert_eq!(render(source, &messages).expect("renders"), "B1False");
    }

    #[test]
    fn json_is_spelt_as_python_spells_it() {
        let source = "{{ {'a': [1, 'é<'], 'b': none} | tojson }}{{ [1] | tojson(indent=2) }}";
        assert_eq!(
            render(source, &[]).expect("renders"),
            "{\"a\": [1, \"é<\"], \"b\": null}[\n  1\n]"
        );
    }

    #[test]
    fn what_the_template_raises_reaches_the_caller() {
        let error =
            render("{{ raise_exception('roles must alternate') }}", &[]).expect_err("raised");
        assert!(matches!(&error, TemplateError::Refused(why) if why == "roles must alternate"));
        let error = render("{{ x + }}", &[]).expect_err("syntax");
        assert!(matches!(error, TemplateError::Unusable(_)), "{error}");
        let error = render("{{ messages.nope() }}", &[]).expect_err("no method");
        assert!(matches!(error, TemplateError::Failed(_)), "{error}");
    }

    #[test]
    fn a_template_cannot_run_for_ever() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
        let error = render(source, &[]).expect_err("out of fuel");
        assert!(error.to_string().contains("fuel"), "{error}");
        let recursive = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
        assert!(render(recursive, &[]).is_err());
    }

    #[test]
    fn a_template_cannot_write_without_end() {
        let source = "{% set x = 'x' * 1000000 %}{% for a in range(1000) %}{{ x }}{% endfor %}";
        let error = render(source, &[]).expect_err("too long");
        assert!(matches!(error, TemplateError::Failed(_)), "{error}");
        let error = ChatTemplate::new("x".repeat(MAX_TEMPLATE_BYTES + 1), SpecialTokens::default())
            .expect_err("too long");
        assert!(matches!(error, TemplateError::Unusable(_)));
    }

    #[test]
    fn what_a_user_writes_is_never_part_of_the_template() {
        let messages = [say(Speaker::User, "{{ 7 * 7 }}{% raw %}<b>")];
        let text = render(
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            &messages,
        );
        assert_eq!(text.expect("renders"), "{{ 7 * 7 }}{% raw %}<b>");
    }
}
