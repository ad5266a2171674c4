//! What each kind of server knows beyond what all of them do. Pure tables, from their documents.

use crate::config::ServerKind;

/// Parameters that a kind of server has a word for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knows {
    pub(super) top_k: bool,
    pub(super) min_p: bool,
    /// Its word for it.
    pub(super) repetition_penalty: Option<&'static str>,
    pub(super) logit_bias: bool,
    /// Whether one can say whether tools are to be called.
    pub(super) tool_choice: bool,
    /// Whether one can say which.
    pub(super) named_tool: bool,
    pub(super) parallel_tool_calls: bool,
    /// Whether arguments are held to their schema.
    pub(super) strict_tools: bool,
    pub(super) json_object: bool,
    /// Grammars of llama.cpp.
    pub(super) gbnf: bool,
}

/// OpenAI's own, and no more.
const OPENAI: Knows = Knows {
    top_k: false,
    min_p: false,
    repetition_penalty: None,
    logit_bias: true,
    tool_choice: true,
    named_tool: true,
    parallel_tool_calls: true,
    strict_tools: true,
    json_object: true,
    gbnf: false,
};

/// What a kind of server knows.
pub(super) fn of(kind: ServerKind) -> Knows {
    match kind {
        ServerKind::Openai => OPENAI,
        ServerKind::LlamaCpp => Knows {
            top_k: true,
            min_p: true,
            repetition_penalty: Some("repeat_penalty"),
            // `auto`, `none` and `required` only.
            named_tool: false,
            // Calls are always held to the schema of their arguments, by its grammar.
            strict_tools: true,
            gbnf: true,
            ..OPENAI
        },
        ServerKind::Vllm => Knows {
            top_k: true,
            min_p: true,
            repetition_penalty: Some("repetition_penalty"),
            // Taken and ignored.
            strict_tools: false,
            ..OPENAI
        },
        ServerKind::Ollama => Knows {
            logit_bias: false,
            tool_choice: false,
            named_tool: false,
            parallel_tool_calls: false,
            strict_tools: false,
            ..OPENAI
        },
        ServerKind::LmStudio => Knows {
            top_k: true,
            repetition_penalty: Some("repeat_penalty"),
            named_tool: false,
            parallel_tool_calls: false,
            strict_tools: false,
            json_object: false,
            ..OPENAI
        },
    }
}

/// A grammar of llama.cpp for one of these texts.
pub(super) fn gbnf_of_choices(choices: &[String]) -> String {
    let mut grammar = "root ::= ".to_owned();
    for (n, choice) in choices.iter().enumerate() {
        if n > 0 {
            grammar.push_str(" | ");
        }
        grammar.push('"');
        for c in choice.chars() {
            match c {
                '"' | '\\' => grammar.extend(['\\', c]),
                '\n' => grammar.push_str("\\n"),
                '\r' => grammar.push_str("\\r"),
                '\t' => grammar.push_str("\\t"),
                c if c.is_control() => grammar.push_str(&format!("\\U{:08X}", u32::from(c))),
                c => grammar.push(c),
            }
        }
        grammar.push('"');
    }
    grammar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_what_is_written_and_nothing_of_it_is_grammar() {
        let choices = ["yes", "a \"b\" \\ | c", "é\n\u{1}"].map(str::to_owned);
        assert_eq!(
            gbnf_of_choices(&choices),
            r#"root ::= "yes" | "a \"b\" \\ | c" | "é\n\U00000001""#
        );
    }
}
