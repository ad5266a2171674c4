//! What is asked, and what came of the answer. Pure.

use super::End;
use crate::mesh::MODEL;
use serde_json::Value;

/// What is asked, and the right answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) model: String,
    pub(crate) text: String,
    pub(crate) answer: String,
}

impl Question {
    /// So many words; the echo engine answers with the same.
    pub(crate) fn echo(words: usize) -> Self {
        let words: Vec<String> = (0..words).map(|n| format!("w{n}")).collect();
        Self {
            model: MODEL.to_owned(),
            text: words.join(" "),
            answer: words.join(" "),
        }
    }
}

/// What came of an answer, from server-sent events.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pending: Vec<u8>,
    text: String,
    error: Option<String>,
    done: bool,
}

impl Answer {
    /// Whether nothing of it came.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                self.done = true;
            } else if let Ok(event) = serde_json::from_str::<Value>(data) {
                if !event["error"].is_null() {
                    self.error = Some(event["error"].to_string());
                }
                let piece = event["choices"][0]["delta"]["content"].as_str();
                self.text.push_str(piece.unwrap_or_default());
            }
        }
    }

    /// What came, if it came whole.
    pub(super) fn whole(self) -> Result<String, End> {
        match self.error {
            Some(error) if self.text.is_empty() => Err(End::Refused(error)),
            Some(error) => Err(End::Cut(error)),
            None if !self.done => Err(End::Cut("the stream ended without its end".to_owned())),
            None => Ok(self.text),
        }
    }

    pub(super) fn end(self, right: &str) -> End {
        match self.whole() {
            Ok(text) if text == right => End::Whole,
            Ok(text) => End::Wrong(format!("{} bytes, not {}", text.len(), right.len())),
            Err(end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(stream: &str, right: &str) -> End {
        let mut answer = Answer::default();
        // In pieces, as a network would give it.
        for piece in stream.as_bytes().chunks(7) {
            answer.take(piece);
        }
        answer.end(right)
    }

    fn piece(text: &str) -> String {
        format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": text}}]})
        )
    }

    #[test]
    fn only_the_whole_answer_counts_as_one() {
        let whole = piece("w0 ") + &piece("w1") + "data: [DONE]\n\n";
        assert_eq!(read(&whole, &Question::echo(2).answer), End::Whole);
        assert!(
            matches!(read(&whole, &Question::echo(3).answer), End::Wrong(_)),
            "a cut that looks whole"
        );
        assert!(matches!(
            read(&piece("w0 "), &Question::echo(2).answer),
            End::Cut(_)
        ));
        let told = "data: {\"error\":{\"code\":\"x\"}}\n\n";
        assert!(matches!(
            read(told, &Question::echo(2).answer),
            End::Refused(_)
        ));
        assert!(matches!(
            read(&(piece("w0 ") + told), &Question::echo(2).answer),
            End::Cut(_)
        ));
    }
}
