//! What is asked, and what came of the answer. Pure.

use super::End;
use serde_json::Value;

/// What is asked: the echo engine answers with the same words.
pub(super) fn question(words: usize) -> String {
    let words: Vec<String> = (0..words).map(|n| format!("w{n}")).collect();
    words.join(" ")
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

    pub(super) fn end(self, question: &str) -> End {
        match self.error {
            Some(error) if self.text.is_empty() => End::Refused(error),
            Some(error) => End::Cut(error),
            None if !self.done => End::Cut("the stream ended without its end".to_owned()),
            None if self.text == question => End::Whole,
            None => End::Wrong(format!("{} of {} bytes", self.text.len(), question.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(stream: &str, question: &str) -> End {
        let mut answer = Answer::default();
        // In pieces, as a network would give it.
        for piece in stream.as_bytes().chunks(7) {
            answer.take(piece);
        }
        answer.end(question)
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
        assert_eq!(read(&whole, &question(2)), End::Whole);
        assert!(
            matches!(read(&whole, &question(3)), End::Wrong(_)),
            "a cut that looks whole"
        );
        assert!(matches!(read(&piece("w0 "), &question(2)), End::Cut(_)));
        let told = "data: {\"error\":{\"code\":\"x\"}}\n\n";
        assert!(matches!(read(told, &question(2)), End::Refused(_)));
        assert!(matches!(
            read(&(piece("w0 ") + told), &question(2)),
            End::Cut(_)
        ));
    }
}
