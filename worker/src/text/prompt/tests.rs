use super::*;
use tether_wire::infer::ToolCall;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for file in tether_tiny_model::files() {
        std::fs::write(folder.path().join(file.name), file.bytes).expect("write");
    }
    folder
}

fn ask(text: &str) -> Input {
    Input::Chat(vec![Message::new(Speaker::User, text)])
}

#[test]
fn the_small_models_prompt_is_what_it_was_taught() {
    let folder = folder();
    let model = TextModel::load(folder.path(), "tokenizer.json", 64).expect("loads");
    let prompt = model.prompt(&ask("Hello"), Some(5)).expect("fits");
    assert_eq!(prompt.max_tokens, 5);
    let same = Input::Text("<|bos|><|user|>Hello<|end|><|assistant|>".to_owned());
    assert_eq!(model.prompt(&same, Some(5)).expect("fits"), prompt);
    // No more than the context holds, whatever is asked for.
    let prompt = model.prompt(&ask("Hello"), None).expect("fits");
    assert_eq!(prompt.len() + prompt.max_tokens, 64);
    let more = model.prompt(&ask("Hello"), Some(9_999)).expect("fits");
    assert_eq!(more.max_tokens, prompt.max_tokens);
}

#[test]
fn a_prompt_over_the_context_names_both_counts() {
    let folder = folder();
    let model = TextModel::load(folder.path(), "tokenizer.json", 10).expect("loads");
    let error = model
        .prompt(&ask("Hello ".repeat(20).as_str()), None)
        .expect_err("long");
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("messages"))
    );
    assert!(error.message.contains("context_length_exceeded"), "{error}");
    assert!(error.message.contains("10 tokens"), "{error}");
    // Exactly full leaves no room for an answer either; one less does.
    assert!(fit(vec![7; 10], None, 10, "prompt").is_err());
    assert_eq!(
        fit(vec![7; 9], None, 10, "prompt")
            .expect("fits")
            .max_tokens,
        1
    );
}

#[test]
fn a_prompt_that_cannot_fit_by_its_bytes_is_not_counted() {
    let folder = folder();
    let model = TextModel::load(folder.path(), "tokenizer.json", 10).expect("loads");
    let most = model.max_token_bytes() as usize;
    assert!((2..1_000).contains(&most), "{most}");
    let refused = |bytes: usize| {
        let text = Input::Text("x".repeat(bytes));
        model.prompt(&text, None).expect_err("too long").message
    };
    // Exactly counted up to the bound, and not beyond.
    assert!(!refused(10 * most).contains("at least 11"));
    assert!(refused(10 * most + 1).contains("prompt has at least 11 tokens"));
    let chat = model.prompt(&ask(&"x".repeat(10 * most)), None);
    assert!(chat.expect_err("too long").message.contains("has at least"));
}

#[test]
fn an_empty_prompt_is_refused() {
    let folder = folder();
    let model = TextModel::load(folder.path(), "tokenizer.json", 64).expect("loads");
    let error = model
        .prompt(&Input::Text(String::new()), None)
        .expect_err("empty");
    assert_eq!(error.param.as_deref(), Some("prompt"));
}

#[test]
fn a_model_without_a_template_takes_text_only() {
    let folder = folder();
    std::fs::write(folder.path().join("tokenizer_config.json"), "{}").expect("write");
    let model = TextModel::load(folder.path(), "tokenizer.json", 64).expect("loads");
    let error = model.prompt(&ask("Hello"), None).expect_err("no template");
    assert!(error.message.contains("no chat template"), "{error}");
    assert!(model.prompt(&Input::Text("Hello".to_owned()), None).is_ok());
}

/// A chat in which the model called a tool with these arguments.
fn called(arguments: &str) -> Input {
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "say".to_owned(),
        arguments: arguments.to_owned(),
    };
    let calls = Message {
        tool_calls: vec![call],
        ..Message::new(Speaker::Assistant, "")
    };
    Input::Chat(vec![Message::new(Speaker::User, "Hello"), calls])
}

#[test]
fn messages_that_no_template_can_render_are_the_requests_fault_and_a_broken_one_the_models() {
    let load = |template: &str| {
        let folder = folder();
        let template = format!("{{# tools <tool_call> #}}{template}");
        std::fs::write(folder.path().join("chat_template.jinja"), template).expect("write");
        TextModel::load(folder.path(), "tokenizer.json", 256).expect("loads")
    };
    let written = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{% for k, v in c.function.arguments.items() %}{{ k }}{% endfor %}{% endfor %}{% endfor %}";
    let model = load(written);
    assert!(model.prompt(&called(r#"{"a":1}"#), None).is_ok());
    let secret = "x".repeat(999);
    let error = model.prompt(&called(&format!("[{secret:?}]")), None);
    let error = error.expect_err("a list has no items()");
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("messages"))
    );
    assert!(error.message.contains("could not render"), "{error}");
    assert!(error.message.contains("items"), "{error}");
    assert!(!error.message.contains("xx"), "{error}");
    // Its reason is bounded, whatever the template names.
    let long = format!(
        "{{% if messages|length > 1 %}}{{{{ messages.{} () }}}}{{% endif %}}",
        "n".repeat(999)
    );
    let error = load(&long)
        .prompt(&called("{}"), None)
        .expect_err("no such method");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.len() < 300, "{error}");
    // Nobody can chat with this one.
    for broken in ["{{ messages.nope() }}", "{{ messages | nope }}"] {
        let error = load(broken)
            .prompt(&ask("Hello"), None)
            .expect_err("broken");
        assert_eq!(error.code, Code::Internal, "{error}");
    }
}

#[test]
fn a_template_file_comes_before_the_configuration() {
    let folder = folder();
    std::fs::write(folder.path().join("chat_template.jinja"), "Hello").expect("write");
    let model = TextModel::load(folder.path(), "tokenizer.json", 64).expect("loads");
    let chat = model.prompt(&ask("ignored"), None).expect("fits");
    let text = model
        .prompt(&Input::Text("Hello".to_owned()), None)
        .expect("fits");
    assert_eq!(chat, text);
    let several = serde_json::json!([
        {"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}
    ]);
    assert_eq!(template_in(&several).as_deref(), Some("y"));
}
