//! What tenants send to a gateway, and what orchestrators tell it.

use crate::Verdict;
use crate::choices::Choices;
use tether_gateway::decoders::{self, Chat, Headers, Refused};
use tether_wire::directory::{DirectoryUpdate, MAX_UPDATE_BYTES};
use tether_wire::infer::{InferRequest, Input, MAX_MESSAGES, MAX_RETRY_TOKEN_BYTES, Prefix};
use tether_wire::{CorrelationId, TenantId, codec};

/// Longest message of a refusal: a stranger's words are not repeated at length.
const MAX_MESSAGE_BYTES: usize = 1_024;

fn told((status, message): &Refused) {
    assert!(status.is_client_error(), "{status}: {message}");
    assert!(message.len() <= MAX_MESSAGE_BYTES, "{message}");
}

/// A body of a chat completion: what is accepted is a request that an orchestrator takes.
pub(crate) fn chat(bytes: &[u8]) -> Verdict {
    let Chat {
        model,
        messages,
        sampling,
        output,
        answers,
    } = match decoders::chat(bytes) {
        Ok(chat) => chat,
        Err(refused) => {
            told(&refused);
            return Verdict::Refused;
        }
    };
    assert!(!model.is_empty() && (1..=MAX_MESSAGES).contains(&messages.len()));
    let said: usize = messages.iter().map(|message| message.content.len()).sum();
    assert!(said <= bytes.len(), "more is said than was sent");
    assert!((1..=16).contains(&answers), "{answers}");
    let tenant = TenantId::new("acme").expect("valid");
    let input = Input::Chat(messages);
    let request = InferRequest {
        correlation: CorrelationId::derive(&tenant, "retry-1"),
        prefix: Prefix::of(&tenant, &input, &output),
        tenant,
        retry_token: "retry-1".into(),
        model: model.clone(),
        input,
        sampling,
        output,
        keyed: false,
        answers: 1,
        resume: None,
    };
    let checked = request.check();
    assert!(checked.is_ok() || model.len() > 128, "{checked:?}");
    let coded = codec::encode(&request);
    assert_eq!(codec::decode("request", &coded, usize::MAX), Ok(request));
    Verdict::Accepted
}

/// A header's value, as key, id and retry token.
pub(crate) fn headers(bytes: &[u8]) -> Verdict {
    let Some(Headers { key, id, token }) = decoders::headers(bytes) else {
        return Verdict::Refused;
    };
    assert!((1..=128).contains(&id.len()) && id.is_ascii());
    if let Ok(token) = &token {
        assert!((1..=MAX_RETRY_TOKEN_BYTES).contains(&token.len()) && token.is_ascii());
    }
    if let Ok(key) = &key {
        assert!((1..=512).contains(&key.len()) && key.trim() == key);
    }
    for refused in [key.as_ref().err(), token.as_ref().err()]
        .into_iter()
        .flatten()
    {
        told(refused);
    }
    Verdict::of(key.is_ok() || token.is_ok())
}

/// Updates of a directory, one after the other.
pub(crate) fn directory(bytes: &[u8]) -> Verdict {
    let mut updates = Vec::new();
    let mut choices = Choices::new(bytes);
    // The first is all there is, unless it is no update; then each is behind its length.
    match codec::decode::<DirectoryUpdate>("directory update", bytes, MAX_UPDATE_BYTES) {
        Ok(update) => updates.push(update),
        Err(_) => {
            while !choices.is_over() {
                let one = choices.bytes();
                updates.extend(codec::decode("directory update", one, MAX_UPDATE_BYTES).ok());
            }
        }
    }
    for update in &updates {
        let coded = codec::encode(update);
        assert_eq!(
            codec::decode("directory update", &coded, usize::MAX),
            Ok(update.clone())
        );
    }
    Verdict::of(decoders::directory(updates) > 0)
}

/// A response as a tenant kept it.
pub(crate) fn saved(bytes: &[u8]) -> Verdict {
    let answers = match tether_gateway::saved::answers(bytes) {
        Ok(answers) => answers,
        Err(why) => return crate::message::refused(&why),
    };
    assert!(!answers.is_empty());
    let text: usize = answers.iter().map(|answer| answer.text.len()).sum();
    assert!(text <= bytes.len() * 3, "more text than was there");
    Verdict::Accepted
}
