//! Calls of tools in a streamed answer, whose parts come in odd pieces. Pure.
//!
//! Ids are our own: a function of the request, as for every other engine.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::CorrelationId;
use tether_wire::infer::{CallDelta, MAX_TOOL_CALLS, Output, call_id};

/// A part of a call, as servers write it.
#[derive(Deserialize)]
pub(super) struct Part {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Default, Deserialize)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// The calls of an answer so far.
#[derive(Debug)]
pub(super) struct Calls {
    correlation: CorrelationId,
    offered: BTreeSet<String>,
    /// By the server's index: the last call that it was for.
    open: BTreeMap<u32, Open>,
    count: u32,
}

#[derive(Debug)]
struct Open {
    /// Ours, once its tool is known.
    index: Option<u32>,
    id: Option<String>,
}

impl Calls {
    pub(super) fn new(correlation: CorrelationId, output: &Output) -> Self {
        let offered = output.callable().iter().map(|tool| tool.name.clone());
        Self {
            correlation,
            offered: offered.collect(),
            open: BTreeMap::new(),
            count: 0,
        }
    }

    /// Whether there was one.
    pub(super) fn is_some(&self) -> bool {
        self.count > 0
    }

    /// Takes a part; says what is wrong with it.
    pub(super) fn take(&mut self, part: Part) -> Result<Option<CallDelta>, String> {
        let id = part.id.filter(|id| !id.is_empty());
        let function = part.function.unwrap_or_default();
        let open = self.open.get(&part.index);
        // Some number every call 0, and tell them apart by their ids.
        let is_next =
            open.is_none_or(|open| matches!((&open.id, &id), (Some(was), Some(is)) if was != is));
        if is_next {
            if self.open.len() >= MAX_TOOL_CALLS || self.count as usize >= MAX_TOOL_CALLS {
                return Err(format!("it calls more than {MAX_TOOL_CALLS} tools"));
            }
            self.open.insert(
                part.index,
                Open {
                    index: None,
                    id: None,
                },
            );
        }
        let Some(open) = self.open.get_mut(&part.index) else {
            return Ok(None);
        };
        if id.is_some() {
            open.id = id;
        }
        let arguments = function.arguments.unwrap_or_default();
        let name = function.name.filter(|name| !name.is_empty());
        match (open.index, name) {
            // Some repeat the name with each part.
            (Some(index), _) => Ok((!arguments.is_empty()).then(|| CallDelta {
                index,
                arguments,
                ..CallDelta::default()
            })),
            (None, Some(name)) if self.offered.contains(&name) => {
                let index = self.count;
                open.index = Some(index);
                self.count += 1;
                Ok(Some(CallDelta {
                    index,
                    id: Some(call_id(&self.correlation, index)),
                    name: Some(name),
                    arguments,
                }))
            }
            (None, Some(_)) => Err("it calls a tool that nobody offered".to_owned()),
            (None, None) if arguments.is_empty() => Ok(None),
            (None, None) => Err("it gives arguments to a tool that it does not name".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::Tool;

    fn calls() -> Calls {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: String::new(),
            parameters: String::new(),
            strict: false,
        };
        let output = Output {
            tools: vec![tool("say"), tool("sing")],
            ..Output::default()
        };
        Calls::new(CorrelationId([3; 16]), &output)
    }

    /// What was called, put together as a caller does.
    fn read(parts: &[&str]) -> Result<Vec<(String, String)>, String> {
        let mut calls = calls();
        let mut whole: Vec<(String, String)> = Vec::new();
        for part in parts {
            let part = serde_json::from_str(part).expect("a part");
            let Some(delta) = calls.take(part)? else {
                continue;
            };
            if let Some(name) = delta.name {
                let id = call_id(&CorrelationId([3; 16]), delta.index);
                assert_eq!(delta.id, Some(id));
                whole.push((name, String::new()));
            }
            whole[delta.index as usize].1 += &delta.arguments;
        }
        Ok(whole)
    }

    #[test]
    fn parts_come_together_however_they_are_cut() {
        let said = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
        assert_eq!(
            read(&[
                r#"{"index":0,"id":"a","type":"function"}"#,
                r#"{"index":0,"function":{"name":"say"}}"#,
                r#"{"index":0,"function":{"name":"say","arguments":"{\"x\""}}"#,
                r#"{"index":1,"id":"b","function":{"name":"sing","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
                r#"{"index":1,"function":{"name":null,"arguments":"{}"}}"#,
            ]),
            Ok(vec![said("say", r#"{"x":1}"#), said("sing", "{}")])
        );
        assert_eq!(
            read(&[
                r#"{"id":"a","function":{"name":"say","arguments":"{}"}}"#,
                r#"{"id":"b","function":{"name":"say","arguments":"{}"}}"#,
            ]),
            Ok(vec![said("say", "{}"), said("say", "{}")]),
            "all of index 0"
        );
    }

    #[test]
    fn what_is_no_call_is_named_and_there_are_not_endlessly_many() {
        let error = read(&[r#"{"function":{"name":"rm"}}"#]).expect_err("unknown");
        assert!(error.contains("nobody offered"), "{error}");
        let error = read(&[r#"{"function":{"arguments":"{"}}"#]).expect_err("nameless");
        assert!(error.contains("does not name"), "{error}");
        let many: Vec<String> = (0..=MAX_TOOL_CALLS)
            .map(|n| format!(r#"{{"index":{n},"id":"{n}"}}"#))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(read(&many).expect_err("too many").contains("more than"));
    }
}
