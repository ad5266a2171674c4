//! Calls of tools in what a model writes. Pure.
//!
//! Each family of models was taught its own way to write a call; which one a model has is seen from
//! its chat template, that writes earlier calls in the same way:
//!
//! | family | a call |
//! |---|---|
//! | Hermes, Qwen | `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, anywhere, any number |
//! | Llama 3 | the answer is `{"name": …, "parameters": {…}}`, several apart by `;` |
//! | Mistral | `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` |
//!
//! A call is said when it is whole: its JSON is an object that names one of the request's tools, with
//! an object of arguments. Until then its text is held back as that of a stop string is. What looked
//! like a call and is none was text, and is given as text: nothing that a model wrote is lost. What
//! comes is the same however the text came in pieces.
//!
//! * `reader` – finds calls in text
//! * `forced` – the grammar of an answer that must call

mod forced;
mod reader;

pub(crate) use forced::{grammar, must_follow};
pub(crate) use reader::CallReader;

use crate::text::tokenizer::TextTokenizer;
use std::collections::BTreeMap;

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `<tool_call>` around JSON.
    Hermes,
    /// JSON alone.
    Llama,
    /// `[TOOL_CALLS]` before a list in JSON.
    Mistral,
}

impl Family {
    /// Of the model with this chat template; nothing where it knows no tools, or writes calls in a
    /// way that is not known here.
    pub(crate) fn of_template(template: &str) -> Option<Self> {
        if !template.contains("tools") {
            return None;
        }
        if template.contains("[TOOL_CALLS]") {
            // Later ones write a name, `[ARGS]` and JSON instead of a list.
            return (!template.contains("[ARGS]")).then_some(Self::Mistral);
        }
        // Some write XML within it.
        if template.contains("<tool_call>") && !template.contains("<function=") {
            return Some(Self::Hermes);
        }
        let is_llama = template.contains("<|start_header_id|>") && template.contains("parameters");
        is_llama.then_some(Self::Llama)
    }

    /// What stands before a call.
    fn opening(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("<tool_call>"),
            Self::Mistral => Some("[TOOL_CALLS]"),
            Self::Llama => None,
        }
    }

    /// What stands behind a call.
    fn closing(self) -> Option<&'static str> {
        (self == Self::Hermes).then_some("</tool_call>")
    }

    /// What the arguments are called.
    fn arguments(self) -> &'static str {
        match self {
            Self::Hermes | Self::Mistral => "arguments",
            Self::Llama => "parameters",
        }
    }

    /// Special tokens whose spelling belongs to the text of calls.
    pub(crate) fn spelled(self, tokenizer: &TextTokenizer) -> BTreeMap<u32, String> {
        let marks = [self.opening(), self.closing()].into_iter().flatten();
        marks
            .filter_map(|mark| Some((tokenizer.special(mark)?, mark.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests;
