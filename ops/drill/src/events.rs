//! Server-sent events of an answer, as they come.

use serde_json::Value;

/// A stream that is read in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: Vec<u8>,
    is_done: bool,
}

impl Events {
    /// The events that are whole with these bytes.
    ///
    /// # Errors
    /// One that is an error, or no JSON: as its text.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Value>, String> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                self.is_done = true;
                continue;
            }
            let event: Value = serde_json::from_str(data).map_err(|it| it.to_string())?;
            if !event["error"].is_null() {
                return Err(event["error"].to_string());
            }
            events.push(event);
        }
        Ok(events)
    }

    /// Whether it ended as an answer does.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut_and_an_error_is_told() {
        let mut events = Events::default();
        assert_eq!(events.take(b": keep-alive\n\ndata: {\"n\""), Ok(vec![]));
        let one = events.take(b":1}\n\ndata: [DO").expect("an event");
        assert_eq!(one[0]["n"], 1);
        assert!(!events.is_done());
        assert_eq!(events.take(b"NE]\n\n"), Ok(vec![]));
        assert!(events.is_done());
        let told = Events::default().take(b"data: {\"error\":\"cut\"}\n");
        assert_eq!(told, Err("\"cut\"".to_owned()));
    }
}
