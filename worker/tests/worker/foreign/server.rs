//! A real TCP server that speaks as much of OpenAI's API as a test asks for, and badly where it asks
//! for that: the prompt of a completion names what it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// The server, until it is dropped.
pub(super) struct BadServer {
    pub(super) address: SocketAddr,
    /// What `/v1/models` answers with.
    pub(super) models_status: Arc<AtomicU16>,
    pub(super) has_model: Arc<AtomicBool>,
    /// Prompts whose connection the other side closed before the answer was over.
    pub(super) left: mpsc::UnboundedReceiver<String>,
    _task: AbortOnDropHandle<()>,
}

pub(super) const HI: &str = r#"data: {"model":"tiny","choices":[{"index":0,"text":"hi","finish_reason":null}]}

"#;
const STOP: &str = r#"data: {"model":"tiny","choices":[{"index":0,"text":"","finish_reason":"stop"}]}

"#;
const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}

"#;
const DONE: &str = "data: [DONE]\n\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

impl BadServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let models_status = Arc::new(AtomicU16::new(200));
        let has_model = Arc::new(AtomicBool::new(true));
        let (leaver, left) = mpsc::unbounded_channel();
        let (status, has) = (models_status.clone(), has_model.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (status, has) = (status.load(Ordering::SeqCst), has.load(Ordering::SeqCst));
                tokio::spawn(serve(stream, status, has, leaver.clone()));
            }
        });
        Self {
            address,
            models_status,
            has_model,
            left,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// The head and body of a request.
async fn read(stream: &mut TcpStream) -> (String, serde_json::Value) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return (String::new(), serde_json::Value::Null);
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("ASCII");
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    (head, serde_json::from_slice(&body).unwrap_or_default())
}

async fn serve(
    mut stream: TcpStream,
    models_status: u16,
    has_model: bool,
    left: mpsc::UnboundedSender<String>,
) {
    let (head, body) = read(&mut stream).await;
    if head.starts_with("GET /v1/models ") {
        let id = if has_model { "tiny" } else { "another" };
        let list = format!(r#"{{"object":"list","data":[{{"id":"{id}","max_model_len":1024}}]}}"#);
        whole(&mut stream, models_status, "", &list).await;
        return;
    }
    let prompt = body["prompt"].as_str().unwrap_or_default().to_owned();
    // Who closes early makes writing fail, which is what some of these wait for.
    let ended = play(&mut stream, &prompt).await;
    if ended.is_err() {
        let _ = left.send(prompt);
    }
}

async fn whole(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

/// One chunk of a chunked body.
async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    let frame = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(frame.as_bytes()).await
}

async fn end(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"0\r\n\r\n").await
}

async fn stream_of(stream: &mut TcpStream, parts: &[&str]) -> std::io::Result<()> {
    stream.write_all(STREAM.as_bytes()).await?;
    for part in parts {
        say(stream, part).await?;
    }
    end(stream).await
}

/// Waits until the other side closes: an error then, so that it is noted.
async fn hang(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

async fn play(stream: &mut TcpStream, what: &str) -> std::io::Result<()> {
    let error = |text: &str| format!(r#"{{"error":{{"message":"{text}","type":"x"}}}}"#);
    match what {
        "well" => stream_of(stream, &[HI, HI, STOP, USAGE, DONE]).await,
        "odd pieces" => {
            let all = [": ping\n\n", HI, ":\n", HI, STOP, USAGE, DONE].concat();
            stream.write_all(STREAM.as_bytes()).await?;
            for byte in all.as_bytes() {
                stream
                    .write_all(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n'])
                    .await?;
                stream.flush().await?;
            }
            end(stream).await
        }
        "never answers" => hang(stream).await,
        "never goes on" => {
            stream.write_all(STREAM.as_bytes()).await?;
            say(stream, HI).await?;
            hang(stream).await
        }
        "comments for ever" => {
            stream.write_all(STREAM.as_bytes()).await?;
            say(stream, HI).await?;
            loop {
                say(stream, ": keep-alive\n\n").await?;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        "text for ever" => {
            stream.write_all(STREAM.as_bytes()).await?;
            loop {
                say(stream, HI).await?;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        "flood" => {
            stream.write_all(STREAM.as_bytes()).await?;
            loop {
                say(stream, HI).await?;
            }
        }
        "cut in an event" => {
            stream.write_all(STREAM.as_bytes()).await?;
            say(stream, HI).await?;
            say(stream, &HI[..30]).await
        }
        "cut in a frame" => {
            stream.write_all(STREAM.as_bytes()).await?;
            say(stream, HI).await?;
            stream.write_all(b"ffff\r\ndata: {").await
        }
        "cut before its end" => stream_of(stream, &[HI, HI]).await,
        "no done" => stream_of(stream, &[HI, STOP, USAGE]).await,
        "no finish" => stream_of(stream, &[HI, USAGE, DONE]).await,
        "finish twice" => stream_of(stream, &[HI, HI, STOP, STOP, USAGE, DONE]).await,
        "two reasons" => {
            let length = STOP.replace("stop", "length");
            stream_of(stream, &[HI, STOP, &length, DONE]).await
        }
        "after its end" => stream_of(stream, &[HI, STOP, HI, DONE]).await,
        "malformed" => stream_of(stream, &[HI, "data: {\"choices\":\n\n"]).await,
        "error in the stream" => {
            let event = format!("data: {}\n\n", error("out of memory"));
            stream_of(stream, &[HI, &event]).await
        }
        "another model" => stream_of(stream, &[&HI.replace("tiny", "huge"), STOP, DONE]).await,
        "a tool" => {
            let call = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"rm"}}]}}]}

"#;
            stream_of(stream, &[call, STOP, DONE]).await
        }
        "gigantic line" => {
            stream.write_all(STREAM.as_bytes()).await?;
            let piece = "x".repeat(64 * 1024);
            say(stream, "data: ").await?;
            loop {
                say(stream, &piece).await?;
            }
        }
        "gigantic event" => {
            stream.write_all(STREAM.as_bytes()).await?;
            let line = format!("data: {}\n", "x".repeat(1_000));
            loop {
                say(stream, &line).await?;
            }
        }
        "endless headers" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-more: and more\r\n").await?;
            }
        }
        "not http" => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await,
        "wrong type" => {
            whole(stream, 200, "", r#"{"choices":[]}"#).await;
            Ok(())
        }
        "endless error" => {
            stream
                .write_all(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n")
                .await?;
            let piece = "x".repeat(64 * 1024);
            loop {
                say(stream, &piece).await?;
            }
        }
        "429" => {
            whole(stream, 429, "retry-after: 7\r\n", &error("slow down")).await;
            Ok(())
        }
        "302" => {
            whole(stream, 302, "location: http://127.0.0.1:1/x\r\n", "").await;
            Ok(())
        }
        "lies high" => {
            let lie = USAGE.replace(":2}", ":2000000}");
            stream_of(stream, &[HI, HI, STOP, &lie, DONE]).await
        }
        "lies low" => {
            let lie = USAGE.replace(":2}", ":0}").replace(":3,", ":0,");
            stream_of(stream, &[HI, HI, STOP, &lie, DONE]).await
        }
        "says more" => {
            let more = USAGE.replace(":2}", ":5}");
            stream_of(stream, &[HI, HI, STOP, &more, DONE]).await
        }
        "no usage" => stream_of(stream, &[HI, HI, STOP, DONE]).await,
        status => {
            let code = status.parse().unwrap_or(500);
            whole(stream, code, "", &error("it says why")).await;
            Ok(())
        }
    }
}
