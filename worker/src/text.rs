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
//! * [`fold`] – tokens → text that is certain, and where the answer ends

pub mod fold;
mod literal;
pub mod prompt;
pub mod sampler;
pub mod template;
pub mod tokenizer;
