//! From messages to tokens and back: everything about text that must be exact and ours.
//!
//! The engine is given tokens and gives logits. Rendering the prompt, counting it, choosing each
//! token, cutting at stop strings and making text of tokens happens here, in pure code, so that an
//! answer is a function of (model, prompt, parameters, seed) whatever engine computes the logits.
//!
//! * [`template`] – messages → prompt text, by the model's own template
//! * [`tokenizer`] – text → tokens → text
//! * `literal` – special tokens that users type are text
//! * [`prompt`] – both of them, and where the context ends
//! * [`sampler`] – logits → the next token
//! * `vocabulary` – the bytes of each token
//! * `logprobs` – how likely a token was
//! * `grammar` – which tokens may come next
//! * `calls` – calls of tools in the text
//! * [`answering`] – all of this for one answer, token by token
//! * `retelling` – what a transcript stands for
//! * [`fold`] – tokens → text and calls that are certain, and where the answer ends

pub mod answering;
pub(crate) mod calls;
pub mod fold;
mod grammar;
mod literal;
#[cfg(any(test, feature = "mistralrs"))]
pub(crate) mod logprobs;
pub mod prompt;
pub(crate) mod retelling;
pub mod sampler;
pub mod template;
pub mod tokenizer;
mod vocabulary;
