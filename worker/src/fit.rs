//! Prompts that cannot fit their model, known by their bytes alone.
//!
//! Counting tokens takes time that grows with the text, so a text that is far too long must not be
//! counted: many of them would keep an engine busy with refusing. No token stands for more bytes
//! than the vocabulary's longest one, so a text of more bytes than the context could hold of those
//! is over it, whatever its exact count. Only a text of which a tokenizer drops or merges most, such
//! as megabytes of blanks, could be refused though its count would have been small.

use tether_wire::infer::{Input, Speaker};
use tether_wire::rpc::{Code, RpcError};

/// The field of a request that holds its prompt.
pub(crate) fn param(input: &Input) -> &'static str {
    match input {
        Input::Chat(_) => "messages",
        Input::Text(_) => "prompt",
    }
}

/// A prompt that the context does not hold. `count` says how many tokens it has.
pub(crate) fn exceeded(param: &str, context_tokens: u32, count: &str) -> RpcError {
    RpcError::new(
        Code::Invalid,
        format!(
            "context_length_exceeded: this model's maximum context length is {context_tokens} tokens, \
             but the prompt has {count} tokens and an answer needs at least one more"
        ),
    )
    .with_param(param)
}

/// Refuses a text whose bytes alone are over the context.
pub(crate) fn check_bytes(
    bytes: usize,
    context_tokens: u32,
    max_token_bytes: u32,
    param: &str,
) -> Result<(), RpcError> {
    let least = (bytes as u64).div_ceil(u64::from(max_token_bytes.max(1)));
    if least > u64::from(context_tokens) {
        let count = format!("at least {least}");
        return Err(exceeded(param, context_tokens, &count));
    }
    Ok(())
}

/// The same before the prompt is rendered: of a chat, what any template keeps. Templates trim
/// messages, and some drop the thoughts of earlier answers.
pub(crate) fn check_input(
    input: &Input,
    context_tokens: u32,
    max_token_bytes: u32,
) -> Result<(), RpcError> {
    let bytes = match input {
        Input::Text(text) => text.len(),
        Input::Chat(messages) => messages
            .iter()
            .filter(|message| message.role != Speaker::Assistant)
            .map(|message| message.content.trim().len())
            .sum(),
    };
    check_bytes(bytes, context_tokens, max_token_bytes, param(input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::Message;

    #[test]
    fn only_what_cannot_fit_is_refused() {
        assert_eq!(check_bytes(80, 10, 8, "prompt"), Ok(()));
        let error = check_bytes(81, 10, 8, "prompt").expect_err("eleven tokens at least");
        assert_eq!(
            (error.code, error.param.as_deref()),
            (Code::Invalid, Some("prompt"))
        );
        assert!(error.message.starts_with("context_length_exceeded"));
        assert!(error.message.contains("at least 11 tokens"), "{error}");
        assert_eq!(
            check_bytes(usize::MAX >> 1, u32::MAX, u32::MAX, "prompt"),
            Ok(())
        );
        assert!(check_bytes(1, 0, 0, "prompt").is_err());
    }

    #[test]
    fn what_a_template_may_drop_does_not_count() {
        let say = |role, content: String| Message::new(role, content);
        let chat = |messages| Input::Chat(messages);
        let dropped = chat(vec![
            say(Speaker::Assistant, "x".repeat(999)),
            say(Speaker::User, " ".repeat(999)),
        ]);
        assert_eq!(check_input(&dropped, 10, 8), Ok(()));
        let kept = chat(vec![
            say(Speaker::System, "x".repeat(40)),
            say(Speaker::User, "x".repeat(41)),
        ]);
        let error = check_input(&kept, 10, 8).expect_err("too long");
        assert_eq!(error.param.as_deref(), Some("messages"));
    }
}
