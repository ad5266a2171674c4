//! How a conversation becomes a prompt: special tokens and the chat template.

use serde_json::{Value, json};

/// Opens every conversation.
pub const BOS: &str = "<|bos|>";
/// Opens a system message.
pub const SYSTEM: &str = "<|system|>";
/// Opens a user's message.
pub const USER: &str = "<|user|>";
/// Opens an answer.
pub const ASSISTANT: &str = "<|assistant|>";
/// Closes every message; the one token that ends generation.
pub const END: &str = "<|end|>";

/// The special tokens in the order of their ids, which start at 0.
pub const SPECIAL_TOKENS: [&str; 5] = [BOS, END, SYSTEM, USER, ASSISTANT];
/// Id of [`BOS`].
pub const BOS_ID: u32 = 0;
/// Id of [`END`].
pub const END_ID: u32 = 1;

/// The Jinja chat template, the same in `tokenizer_config.json` and in the GGUF.
///
/// One system message, and only as the first; any other role is refused by `raise_exception`. Tools are
/// told, called and answered in the way of Hermes; the model was taught none of it, so that only a
/// grammar makes it call one.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}\
{% if tools %}\
{{ '<|system|>' }}\
{% if messages[0]['role'] == 'system' %}{{ (messages[0]['content'] | trim) + '\\n\\n' }}{% endif %}\
{{ 'Tools:\\n<tools>' }}\
{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}\
{{ '\\n</tools>\\nCall one: <tool_call>\\n{\"name\": NAME, \"arguments\": ARGUMENTS}\\n</tool_call><|end|>' }}\
{% endif %}\
{% for message in messages %}\
{% if message['role'] == 'system' and not loop.first %}\
{{ raise_exception('a system message must be the first') }}\
{% elif message['role'] == 'system' and tools %}\
{% elif message['role'] == 'assistant' and message['tool_calls'] %}\
{{ '<|assistant|>' + (message['content'] | trim) }}\
{% for call in message['tool_calls'] %}\
{{ '<tool_call>\\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}\
{{ call['function']['arguments'] | tojson }}{{ '}\\n</tool_call>' }}\
{% endfor %}{{ '<|end|>' }}\
{% elif message['role'] == 'tool' %}\
{{ '<|user|><tool_response>\\n' + (message['content'] | trim) + '\\n</tool_response><|end|>' }}\
{% elif message['role'] in ['system', 'user', 'assistant'] %}\
{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}\
{% else %}\
{{ raise_exception('unknown role: ' + message['role']) }}\
{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// `tokenizer_config.json` for a context of `context_tokens`.
#[must_use]
pub fn tokenizer_config(context_tokens: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": false,
        "add_eos_token": false,
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": END,
        "unk_token": null,
        "clean_up_tokenization_spaces": false,
        "model_max_length": context_tokens,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// `generation_config.json`: which token ends an answer.
#[must_use]
pub fn generation_config() -> Value {
    json!({ "bos_token_id": BOS_ID, "eos_token_id": END_ID, "pad_token_id": END_ID })
}

/// A prompt for `question` alone, as the template renders it.
#[must_use]
pub fn prompt(question: &str) -> String {
    format!("{BOS}{USER}{question}{END}{ASSISTANT}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::{Environment, Error, ErrorKind, context};

    fn render(messages: Value) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_template("chat", CHAT_TEMPLATE)?;
        environment.get_template("chat")?.render(context! {
            messages => minijinja::Value::from_serialize(&messages),
            bos_token => BOS,
            add_generation_prompt => true,
        })
    }

    #[test]
    fn a_question_renders_as_the_model_was_taught() {
        let rendered = render(json!([{ "role": "user", "content": " Hello\n" }])).unwrap();
        assert_eq!(rendered, prompt("Hello"));
    }

    #[test]
    fn turns_follow_one_another_after_one_system_message() {
        let rendered = render(json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "content": "Hello!" },
            { "role": "user", "content": "Bye" },
        ]))
        .unwrap();
        assert_eq!(
            rendered,
            "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|><|assistant|>"
        );
    }

    #[test]
    fn unknown_roles_and_late_system_messages_are_refused() {
        let unknown = render(json!([{ "role": "function", "content": "x" }])).unwrap_err();
        assert!(unknown.to_string().contains("unknown role: function"));
        let late = render(json!([
            { "role": "user", "content": "Hi" },
            { "role": "system", "content": "x" },
        ]));
        assert!(late.is_err());
    }
}
