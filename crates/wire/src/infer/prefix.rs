//! What prompts have in common at their beginning, as hashes: whoever places a request can tell that
//! a worker read its beginning before, and need not see the prompt. [T-INF-14]

use super::{Input, Output, ToolCall};
use crate::codec::{CodecError, check_field, check_len};
use crate::id::TenantId;
use serde::{Deserialize, Serialize};

/// Bytes of the prompt in a block. [T-INF-14]
pub const PREFIX_BLOCK_BYTES: usize = 256;
/// Most blocks that are told; what is behind them is in no prefix. [T-INF-14]
pub const MAX_PREFIX_BLOCKS: usize = 64;
/// Bytes of a block's hash. [T-INF-14]
const HASH_BYTES: usize = 8;
/// Ends each part of a message: no text in UTF-8 holds it.
const END: u8 = 0xff;

/// The beginnings of a prompt, from the shortest to the longest, each as a hash of all that it holds:
/// two prompts of one tenant have as many hashes in common as whole blocks.
///
/// The tenant's name is in the hashes and is no secret. They keep a prompt from who does not know it,
/// and not from who can guess it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prefix(#[serde(with = "serde_bytes")] Vec<u8>);

impl Prefix {
    /// The beginnings of what the model is given, as far as they are whole blocks.
    #[must_use]
    pub fn of(tenant: &TenantId, input: &Input, output: &Output) -> Self {
        let mut blocks = Blocks::new(tenant);
        match input {
            Input::Text(text) => blocks.part(text),
            Input::Chat(messages) => {
                for tool in output.callable() {
                    blocks.part("tool-offered");
                    blocks.part(&tool.name);
                    blocks.part(&tool.description);
                    blocks.part(&tool.parameters);
                }
                for message in messages {
                    if blocks.is_full() {
                        break;
                    }
                    blocks.part(message.role.as_str());
                    blocks.part(message.name.as_deref().unwrap_or_default());
                    blocks.part(message.tool_call_id.as_deref().unwrap_or_default());
                    blocks.part(&message.content);
                    for ToolCall {
                        id,
                        name,
                        arguments,
                    } in &message.tool_calls
                    {
                        blocks.part(id);
                        blocks.part(name);
                        blocks.part(arguments);
                    }
                }
            }
        }
        Self(blocks.hashes)
    }

    /// The hashes, that of the shortest beginning first.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = u64> {
        self.0.chunks_exact(HASH_BYTES).map(|hash| {
            let hash = <[u8; HASH_BYTES]>::try_from(hash);
            u64::from_be_bytes(hash.expect("chunks of eight bytes"))
        })
    }

    /// Whether the prompt has not one whole block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn check(&self) -> Result<(), CodecError> {
        let what = "request";
        check_len(what, "prefix", self.0.len(), MAX_PREFIX_BLOCKS * HASH_BYTES)?;
        let is_whole = self.0.len().is_multiple_of(HASH_BYTES);
        check_field(what, "prefix", is_whole, || {
            format!("is not made of hashes of {HASH_BYTES} bytes")
        })
    }
}

/// Cuts what it is given into blocks, and hashes each with all before it.
struct Blocks {
    key: [u8; 32],
    /// The hash of all blocks before this one.
    before: [u8; 32],
    block: Vec<u8>,
    hashes: Vec<u8>,
}

impl Blocks {
    fn new(tenant: &TenantId) -> Self {
        let context = "tether 2026 prompt prefix v1";
        Self {
            key: blake3::derive_key(context, tenant.as_str().as_bytes()),
            before: [0; 32],
            block: Vec::with_capacity(PREFIX_BLOCK_BYTES),
            hashes: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.hashes.len() == MAX_PREFIX_BLOCKS * HASH_BYTES
    }

    fn part(&mut self, text: &str) {
        self.take(text.as_bytes());
        self.take(&[END]);
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_full() {
            let room = PREFIX_BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == PREFIX_BLOCK_BYTES {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.before);
        hasher.update(&self.block);
        self.before = *hasher.finalize().as_bytes();
        self.hashes.extend_from_slice(&self.before[..HASH_BYTES]);
        self.block.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{Message, Speaker, Tool};

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("valid")
    }

    fn chat(said: &[(Speaker, &str)]) -> Prefix {
        let messages = said.iter().map(|(role, text)| Message::new(*role, *text));
        let input = Input::Chat(messages.collect());
        Prefix::of(&tenant("acme"), &input, &Output::default())
    }

    fn common(one: &Prefix, other: &Prefix) -> usize {
        let both = one.blocks().zip(other.blocks());
        both.take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn a_conversation_that_goes_on_begins_as_it_did() {
        let (first, answer) = ("x".repeat(700), "y".repeat(500));
        let one = chat(&[(Speaker::System, &first), (Speaker::User, "one?")]);
        assert_eq!(one.blocks().len(), 2, "700 bytes and some are two blocks");
        let two = chat(&[
            (Speaker::System, &first),
            (Speaker::User, "one?"),
            (Speaker::Assistant, &answer),
            (Speaker::User, "two?"),
        ]);
        assert_eq!(common(&one, &two), 2);
        assert!(two.blocks().len() > 2);
        let other = chat(&[(Speaker::System, &first), (Speaker::User, "another?")]);
        assert_eq!(common(&one, &other), 2, "what they share is shared");
        let short = chat(&[(Speaker::User, "hello")]);
        assert!(short.is_empty(), "less than a block is no prefix");
    }

    #[test]
    fn what_one_tenant_says_is_nothing_that_another_said() {
        let input = Input::Text("x".repeat(1_000));
        let plain = Output::default();
        let of = |name| Prefix::of(&tenant(name), &input, &plain);
        assert_eq!(of("acme"), of("acme"));
        assert_eq!(common(&of("acme"), &of("bolt")), 0);
    }

    #[test]
    fn who_speaks_and_which_tools_there_are_is_part_of_the_prompt() {
        let text = "x".repeat(1_000);
        let user = chat(&[(Speaker::User, &text)]);
        assert_eq!(common(&user, &chat(&[(Speaker::System, &text)])), 0);
        let tool = Tool {
            name: "weather".into(),
            description: String::new(),
            parameters: String::new(),
            strict: false,
        };
        let output = Output {
            tools: vec![tool],
            ..Output::default()
        };
        let input = Input::Chat(vec![Message::new(Speaker::User, text)]);
        let tools = Prefix::of(&tenant("acme"), &input, &output);
        assert_eq!(common(&user, &tools), 0);
    }

    #[test]
    fn a_long_prompt_is_told_by_its_first_blocks() {
        let long = Input::Text("x".repeat(1 << 20));
        let prefix = Prefix::of(&tenant("acme"), &long, &Output::default());
        assert_eq!(prefix.blocks().len(), MAX_PREFIX_BLOCKS);
        assert!(prefix.check().is_ok());
        let mut blocks: Vec<u64> = prefix.blocks().collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(
            blocks.len(),
            MAX_PREFIX_BLOCKS,
            "equal blocks, other hashes"
        );
    }

    #[test]
    fn a_prefix_that_is_too_long_or_no_row_of_hashes_is_refused() {
        let most = MAX_PREFIX_BLOCKS * HASH_BYTES;
        assert!(Prefix(vec![0; most]).check().is_ok());
        assert!(Prefix(vec![0; most + HASH_BYTES]).check().is_err());
        let error = Prefix(vec![0; 12]).check().expect_err("refused");
        assert!(error.to_string().contains("prefix"), "{error}");
    }
}
