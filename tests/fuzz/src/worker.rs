//! What a worker and its engines read: each other's messages, templates of models, prompts of users.

use crate::Verdict;
use crate::choices::Choices;
use crate::seeds::{Seed, root};
use std::sync::OnceLock;
use tether_wire::infer::{
    CallDelta, Chunk, Finish, Format as OutputFormat, Input, Message, Output, Sampling, Speaker,
    TokenLogprob, Tool, ToolCall, ToolChoice, Usage,
};
use tether_wire::manifest::Format;
use tether_wire::rpc::{Code, RpcError};
use tether_worker::engine::openai::decoders;
use tether_worker::engine::protocol::{
    self, Continuation, EngineKind, FromEngine, Generate, Load, Task, ToEngine, read_message,
    write_message,
};
use tether_worker::text::prompt::TextModel;
use tether_worker::text::template::{ChatTemplate, MAX_PROMPT_BYTES, SpecialTokens};

/// The context of the model whose tokenizer and template are used.
const CONTEXT_TOKENS: u32 = 2_048;

/// A stream of messages between a worker and its engine, in both directions: an engine that went mad
/// must not hurt its worker.
pub(crate) fn engine_messages(bytes: &[u8]) -> Verdict {
    let to = messages::<ToEngine>(bytes);
    let from = messages::<FromEngine>(bytes);
    Verdict::of(to + from > 0)
}

fn messages<T: protocol::Message>(mut stream: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(message)) = read_message::<T>(&mut stream) {
        count += 1;
        let mut written = Vec::new();
        // Defaults are written out, so one at its limit may not fit again.
        if write_message(&mut written, &message).is_err() {
            continue;
        }
        let again: T = read_message(&mut written.as_slice())
            .expect("our own bytes")
            .expect("one message");
        let mut twice = Vec::new();
        write_message(&mut twice, &again).expect("as before");
        assert_eq!(twice, written, "it reads the same again");
    }
    count
}

fn said(role: Speaker, content: &str) -> Message {
    Message::new(role, content)
}

/// A chat template, on a short chat: it ends, within its bounds, whatever program it is.
pub(crate) fn chat_template(bytes: &[u8]) -> Verdict {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    let special = SpecialTokens {
        bos: Some("<s>".into()),
        eos: Some("</s>".into()),
        ..SpecialTokens::default()
    };
    let Ok(template) = ChatTemplate::new(source.to_owned(), special) else {
        return Verdict::Refused;
    };
    let chat = [
        said(Speaker::System, "Answer in one word."),
        said(Speaker::User, " What is <s> the capital of \u{e9}?\n"),
        said(Speaker::Assistant, "Paris"),
    ];
    let rendered = template.render(&chat);
    if let Ok(prompt) = &rendered {
        assert!(prompt.len() <= MAX_PROMPT_BYTES);
    }
    Verdict::of(rendered.is_ok())
}

fn model() -> &'static TextModel {
    static MODEL: OnceLock<TextModel> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = root().join("crates/tiny-model/model");
        TextModel::load(&folder, "tokenizer.json", CONTEXT_TOKENS).expect("the committed model")
    })
}

/// What users say, with a real template and tokenizer. The first byte says how many messages it is:
/// none is a plain prompt.
pub(crate) fn prompt(bytes: &[u8]) -> Verdict {
    let Some((first, rest)) = bytes.split_first() else {
        return Verdict::Refused;
    };
    let input = match first % 5 {
        0 => Input::Text(String::from_utf8_lossy(rest).into_owned()),
        count => {
            let mut choices = Choices::new(rest);
            let roles = [Speaker::User, Speaker::System, Speaker::Assistant];
            let message = |choices: &mut Choices<'_>| {
                let role = choices.of(&roles);
                said(role, &String::from_utf8_lossy(choices.bytes()))
            };
            Input::Chat((0..count).map(|_| message(&mut choices)).collect())
        }
    };
    let asked = [None, Some(1), Some(100)][usize::from(first / 5 % 3)];
    match model().prompt(&input, asked) {
        Ok(prompt) => {
            assert!(!prompt.is_empty() && prompt.max_tokens >= 1);
            assert!(
                prompt.len() + prompt.max_tokens <= CONTEXT_TOKENS,
                "over the context"
            );
            assert!(asked.is_none_or(|asked| prompt.max_tokens <= asked));
            Verdict::Accepted
        }
        Err(error) => {
            assert_eq!(error.code, Code::Invalid, "{error}");
            Verdict::Refused
        }
    }
}

/// What an answer must be, as tenants say it, and what a model makes of it: schemas, patterns,
/// grammars, tools, and text that may be calls. It ends within its bounds, and errors name the field.
pub(crate) fn form(bytes: &[u8]) -> Verdict {
    let Some((kind, rest)) = bytes.split_first() else {
        return Verdict::Refused;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return Verdict::Refused;
    };
    let call = Message {
        tool_calls: vec![ToolCall {
            id: "a1B2c3D4e".into(),
            name: "say".into(),
            arguments: text.to_owned(),
        }],
        ..said(Speaker::Assistant, "")
    };
    let tool = |parameters: &str| Tool {
        name: "say".into(),
        description: text.to_owned(),
        parameters: parameters.to_owned(),
        strict: false,
    };
    let mut output = Output::default();
    let mut transcript = Vec::new();
    match kind % 6 {
        0 => output.format = OutputFormat::JsonSchema(text.to_owned()),
        1 => output.format = OutputFormat::Regex(text.to_owned()),
        2 => output.format = OutputFormat::Lark(text.to_owned()),
        3 => output.format = OutputFormat::Choice(text.lines().map(str::to_owned).collect()),
        4 => (output.tools, output.tool_choice) = (vec![tool(text)], ToolChoice::Required),
        _ => {
            output.tools = vec![tool("")];
            transcript = model().tokenizer().encode(text, false).unwrap_or_default();
        }
    }
    if let Err(error) = output.check() {
        return crate::message::refused(&error);
    }
    let task = Task {
        output,
        transcript,
        ..Task::new(
            Input::Chat(vec![said(Speaker::User, "hi"), call]),
            Sampling::default(),
        )
    };
    // In the words of servers that providers run.
    let _ = decoders::request(&task);
    let answer = |task: &Task| -> Result<(), RpcError> {
        let prompt = model().prompt_for(&task.input, &task.output, Some(64))?;
        let mut answering = model().answer(&prompt, task)?;
        // Logits that follow from the bytes, so that draws do.
        let logit = |id: usize| f32::from(bytes[id % bytes.len()]) / 16.0;
        let logits: Vec<f32> = (0..model().vocabulary()).map(logit).collect();
        while answering.finish().is_none() {
            let token = answering.draw(&logits)?;
            answering.take(token)?;
        }
        Ok(())
    };
    match answer(&task) {
        Ok(()) => Verdict::Accepted,
        Err(error) => {
            assert_eq!(error.code, Code::Invalid, "{error}");
            assert!(error.param.is_some(), "{error}");
            crate::message::refused(&error)
        }
    }
}

/// The stream of an answer by a server that a provider runs. The first byte says whether tools may be
/// called.
pub(crate) fn server_answer(bytes: &[u8]) -> Verdict {
    let Some((first, rest)) = bytes.split_first() else {
        return Verdict::Refused;
    };
    let mut output = Output::default();
    if first % 2 == 1 {
        output.tools = vec![Tool {
            name: "say".into(),
            description: String::new(),
            parameters: String::new(),
            strict: false,
        }];
    }
    match decoders::answer(rest, &output) {
        Ok(ended) => Verdict::of(ended),
        Err(error) => {
            assert!(error.len() < 8_192, "an error is short");
            Verdict::Refused
        }
    }
}

/// What such a server says of its models.
pub(crate) fn server_models(bytes: &[u8]) -> Verdict {
    Verdict::of(decoders::listing(bytes))
}

/// Messages of both directions.
pub(crate) fn engine_samples() -> Vec<Seed> {
    fn stream<T: protocol::Message>(messages: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            write_message(&mut bytes, message).expect("a sample fits");
        }
        bytes
    }
    let to = [
        ToEngine::Load(Load {
            kind: EngineKind::Echo,
            root: "/models/tiny".into(),
            has_adapter: false,
            weights: "model.gguf".into(),
            tokenizer: None,
            format: Format::Gguf,
            context_tokens: CONTEXT_TOKENS,
            threads: 0,
            slots: 4,
            model_name: "tether-tiny@1.0".into(),
            continuation: Continuation::default(),
            echo_delay_ms: 0,
            compute: tether_worker::device::Compute::default(),
            confine: tether_worker::sandbox::Confine::default(),
        }),
        ToEngine::Generate(Generate {
            id: 1,
            task: Task {
                output: Output {
                    format: OutputFormat::Regex("[a-z]+".into()),
                    ..Output::default()
                },
                transcript: vec![7, 9],
                ..Task::new(
                    Input::Chat(vec![said(Speaker::User, "hi")]),
                    Sampling::default(),
                )
            },
        }),
        ToEngine::Cancel { id: 1 },
        ToEngine::Ping { n: 3 },
    ];
    let from = [
        FromEngine::Loaded {
            context_tokens: CONTEXT_TOKENS,
            engine: "echo".into(),
            numerics_class: "echo".into(),
            sequences: 4,
            max_token_bytes: Some(16),
            load_ms: 5,
        },
        FromEngine::Started {
            id: 1,
            prompt_tokens: 3,
        },
        FromEngine::Retold {
            id: 1,
            chunk: Chunk::new(0, vec![7, 9], "h"),
        },
        FromEngine::Chunk {
            id: 1,
            chunk: Chunk {
                logprobs: vec![TokenLogprob {
                    token: 7,
                    logprob: -0.5,
                    bytes: b"h".to_vec(),
                    top: Vec::new(),
                }],
                calls: vec![CallDelta {
                    index: 0,
                    id: Some("a1b2c3d4e".into()),
                    name: Some("say".into()),
                    arguments: "{".into(),
                }],
                ..Chunk::new(0, vec![7], "h")
            },
        },
        FromEngine::Done {
            id: 1,
            finish: Finish::Stop,
            usage: Usage::default(),
            prefill_ms: 1,
            decode_ms: 2,
        },
        FromEngine::Failed {
            id: 2,
            error: RpcError::new(Code::Invalid, "no"),
        },
        FromEngine::Cancelled { id: 3 },
        FromEngine::AdapterUnfit {
            reason: "use_dora".into(),
        },
        FromEngine::Pong { n: 3 },
    ];
    vec![
        Seed::new("to-engine", stream(&to)),
        Seed::new("from-engine", stream(&from)),
        Seed::new("huge", [0x7f, 0xff, 0xff, 0xff]),
    ]
}
