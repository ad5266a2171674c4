//! Asks a gateway, reads to the end or hangs up, and says what came of it.

use super::answer::Reply;
use super::mix::{HangUp, Request};
use crate::mesh::client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tether_wire::grant::Mesh;

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// The whole answer, with nothing wrong about it.
    Whole,
    /// Refused, as it had to be.
    Refused,
    /// The caller hung up.
    HungUp,
    /// Failed, and was told why.
    Failed(String),
    /// Cut off without a word, or failed without a reason.
    Silent(String),
    /// Presented as whole and right, and something is wrong about it.
    Wrong(String),
}

/// The text of an answer, and why it ended.
type Given = (String, Option<String>);

/// Who asks.
pub(super) struct Caller {
    client: reqwest::Client,
    url: String,
    key: String,
    mesh: Mesh,
    /// The answer to what was asked before.
    known: Mutex<BTreeMap<String, Vec<Given>>>,
}

/// What came over the connection.
enum Came {
    Reply(u16, Reply),
    HungUp,
    Broken(String),
}

impl Caller {
    pub(super) fn new(gateway: &str, key: &str, mesh: Mesh) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            url: format!("{gateway}/v1/chat/completions"),
            key: key.to_owned(),
            mesh,
            known: Mutex::default(),
        })
    }

    pub(super) async fn ask(&self, request: &Request) -> (End, Duration) {
        let at = Instant::now();
        let came = match request.hang_up {
            Some(HangUp::After(time)) => tokio::time::timeout(time, self.reply(request))
                .await
                .unwrap_or(Came::HungUp),
            _ => self.reply(request).await,
        };
        let took = at.elapsed();
        (self.judge(request, came), took)
    }

    async fn reply(&self, request: &Request) -> Came {
        let sent = self.client.post(&self.url).bearer_auth(&self.key);
        let sent = sent
            .header("content-type", "application/json")
            .body(request.body.clone());
        let mut response = match sent.send().await {
            Ok(response) => response,
            Err(error) => return Came::Broken(format!("{error:?}")),
        };
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type");
        let is_stream = kind.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return match response.bytes().await {
                Ok(body) => Came::Reply(status, Reply::whole(&body)),
                Err(error) => Came::Broken(format!("{error:?}")),
            };
        }
        let mut reply = Reply::default();
        loop {
            if let Some(HangUp::Pieces(most)) = request.hang_up
                && reply.pieces >= most
            {
                return Came::HungUp;
            }
            match response.chunk().await {
                Ok(Some(bytes)) => reply.take(&bytes),
                Ok(None) => return Came::Reply(status, reply),
                Err(error) => return Came::Broken(format!("{error:?}")),
            }
        }
    }

    fn judge(&self, request: &Request, came: Came) -> End {
        let (status, reply) = match came {
            Came::HungUp => return End::HungUp,
            Came::Broken(why) => return End::Silent(why),
            Came::Reply(status, reply) => (status, reply),
        };
        if let Some(error) = &reply.error {
            let refusal = request.expected.refusal.as_ref();
            return match refusal {
                Some(refusal) if refusal.is(status, error) => End::Refused,
                Some(_) => End::Wrong(format!("refused by {status} {error}")),
                None if names_why(error) => End::Failed(format!("{status} {error}")),
                None => End::Silent(format!("{status} {error}")),
            };
        }
        if let Some(why) = reply.silence() {
            return End::Silent(format!("{status}: {why}"));
        }
        if request.expected.refusal.is_some() {
            return End::Wrong("it was not refused".to_owned());
        }
        let fault = request.expected.fault(&reply, &self.mesh);
        match fault.or_else(|| self.changed(request, reply)) {
            Some(why) => End::Wrong(why),
            None => End::Whole,
        }
    }

    /// How it differs from the answer to the same request before.
    fn changed(&self, request: &Request, reply: Reply) -> Option<String> {
        let key = request.expected.key.clone()?;
        let answers = reply.choices.into_iter().map(|it| (it.text, it.finish));
        let answers: Vec<Given> = answers.collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(key).or_insert_with(|| answers.clone());
        (*before != answers).then(|| format!("{answers:?}, and before it was {before:?}"))
    }

    /// Different requests that have been answered.
    pub(super) fn different(&self) -> usize {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Whether an error says what happened: for programs and for people.
fn names_why(error: &Value) -> bool {
    let says = |field: &str| error[field].as_str().is_some_and(|it| !it.is_empty());
    says("message") && says("code")
}

#[cfg(test)]
mod tests {
    use super::super::expect::{Expected, Form, Refusal};
    use super::super::mix::Kind;
    use super::*;
    use serde_json::json;
    use tether_net::testing::LocalMesh;
    use tether_wire::Role;
    use tether_wire::grant::Access;

    fn caller() -> Caller {
        let (node, _) =
            LocalMesh::new(Access::Invite).config(tether_net::testing::key(), Role::Worker);
        Caller::new("http://nowhere", "", node.members.mesh()).expect("a caller")
    }

    fn request(refusal: Option<Refusal>) -> Request {
        Request {
            kind: Kind::Whole,
            body: Vec::new(),
            hang_up: None,
            expected: Expected::new(&json!({"temperature": 0}), Form::Text, refusal),
        }
    }

    #[tokio::test]
    async fn a_failure_without_a_reason_is_silence() {
        let end = |refusal, status, body: Value| {
            let reply = Reply::whole(body.to_string().as_bytes());
            caller().judge(&request(refusal), Came::Reply(status, reply))
        };
        let told = json!({"error": {"message": "full", "code": "overloaded", "param": null}});
        assert!(matches!(end(None, 503, told.clone()), End::Failed(_)));
        let mute = json!({"error": {"message": "", "code": "overloaded"}});
        assert!(matches!(end(None, 503, mute), End::Silent(_)));
        assert!(matches!(end(None, 200, json!({})), End::Silent(_)));
        assert!(matches!(
            end(Some(Refusal::of("n")), 503, told),
            End::Wrong(_)
        ));
        let right = json!({"error": {"message": "m", "code": "c", "param": "n"}});
        assert_eq!(end(Some(Refusal::of("n")), 400, right), End::Refused);
        let unsigned = json!({
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "a"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        });
        assert_eq!(
            end(None, 200, unsigned),
            End::Wrong("no receipt".to_owned())
        );
    }

    #[tokio::test]
    async fn the_same_request_has_the_same_answer() {
        let caller = caller();
        let reply = |text: &str| {
            Reply::whole(
                json!({"choices": [{"finish_reason": "stop", "message": {"content": text}}]})
                    .to_string()
                    .as_bytes(),
            )
        };
        assert_eq!(caller.changed(&request(None), reply("a")), None);
        assert_eq!(caller.changed(&request(None), reply("a")), None);
        assert!(caller.changed(&request(None), reply("b")).is_some());
        assert_eq!(caller.different(), 1);
    }
}
