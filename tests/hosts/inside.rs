//! HTTP requests from inside a host: this test binary runs itself there, since a process is in one
//! network at a time.

use crate::lan::Host;
use crate::support::{self, Reply};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::Instant;

/// What is asked, as JSON.
const REQUEST: &str = "HOSTS_REQUEST";
/// How often it is asked; the last answer is given, and the median time of all.
const TIMES: &str = "HOSTS_TIMES";
/// The header of that time.
pub(crate) const MEDIAN_US: &str = "hosts-median-us";
/// Before the line of JSON with the answer, since the test harness prints lines of its own.
const ANSWER: &str = "hosts-answer: ";

/// A request under way.
pub(crate) struct Asking(Option<Child>);

/// Begins a request, the same as often as is said, one after the other; without a body it is a GET.
pub(crate) fn ask_often(
    times: usize,
    host: &Host,
    url: &str,
    token: &str,
    body: Option<&Value>,
) -> Asking {
    let own = std::env::current_exe().expect("this test binary");
    let child = host
        .command(own.to_str().expect("UTF-8"))
        .args(["--exact", "inside::request", "--ignored", "--nocapture"])
        .env(
            REQUEST,
            json!({"url": url, "token": token, "body": body}).to_string(),
        )
        .env(TIMES, times.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Asking(Some(child.expect("it starts")))
}

/// Begins a request.
pub(crate) fn ask(host: &Host, url: &str, token: &str, body: Option<&Value>) -> Asking {
    ask_often(1, host, url, token, body)
}

impl Asking {
    /// Its answer; nothing, where the other side did not give a whole one.
    pub(crate) fn answer(mut self) -> Option<Reply> {
        let child = self.0.take().expect("asked once");
        let output = child.wait_with_output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stdout);
        let (_, answer) = said.split_once(ANSWER)?;
        let answer: Value = serde_json::from_str(answer.lines().next()?).expect("JSON");
        Some(Reply {
            status: answer["status"].as_u64().expect("a status") as u16,
            headers: serde_json::from_value(answer["headers"].clone()).expect("pairs"),
            text: answer["text"].as_str().expect("text").to_owned(),
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "the others run it inside their hosts"]
fn request() {
    let Ok(request) = std::env::var(REQUEST) else {
        return;
    };
    let request: Value = serde_json::from_str(&request).expect("JSON");
    let text = |field: &str| request[field].as_str().expect("text");
    let times = std::env::var(TIMES).map_or(1, |times| times.parse().expect("a number"));
    let mut took = Vec::new();
    let mut last = None;
    for _ in 0..times {
        let begin = Instant::now();
        last = Some(match &request["body"] {
            Value::Null => support::get(text("url"), text("token")),
            body => support::post(text("url"), text("token"), body),
        });
        took.push(begin.elapsed());
    }
    took.sort();
    let mut reply = last.expect("at least once");
    let median = took[took.len() / 2].as_micros().to_string();
    reply.headers.push((MEDIAN_US.to_owned(), median));
    let reply = json!({"status": reply.status, "headers": reply.headers, "text": reply.text});
    println!("{ANSWER}{reply}");
}
