//! Server-sent events, as far as answers need them: the `data` of each event. Pure and bounded.
//!
//! After the WHATWG specification: lines end in LF, CRLF or CR; lines that start with a colon are
//! comments, which servers send to keep a connection open; an event that no blank line ends is none.

/// Most bytes of one line, and of one event.
pub(super) const MAX_EVENT_BYTES: usize = 128 * 1024;

/// What is no stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventsError {
    /// Over [`MAX_EVENT_BYTES`].
    #[error("an event has more than {MAX_EVENT_BYTES} bytes")]
    TooLong,
    /// An event that is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// A stream of events, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// A line feed that comes next belongs to the line end before it.
    after_cr: bool,
}

impl Events {
    /// Takes the next bytes; adds the data of each event that they complete.
    pub(super) fn push(&mut self, bytes: &[u8], into: &mut Vec<String>) -> Result<(), EventsError> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + part.len() > MAX_EVENT_BYTES {
                return Err(EventsError::TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if let Some(data) = self.end_line()? {
                into.push(data);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<String>, EventsError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = self.data.take();
            return data
                .map(|data| String::from_utf8(data).map_err(|_| EventsError::NotUtf8))
                .transpose();
        }
        // Comments, and fields that mean nothing here.
        if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                None => self.data = Some(value.to_vec()),
                Some(data) if data.len() + 1 + value.len() > MAX_EVENT_BYTES => {
                    return Err(EventsError::TooLong);
                }
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(cuts: &[&[u8]]) -> Result<Vec<String>, EventsError> {
        let mut events = Events::default();
        let mut data = Vec::new();
        for cut in cuts {
            events.push(cut, &mut data)?;
        }
        Ok(data)
    }

    #[test]
    fn data_comes_out_and_comments_and_other_fields_do_not() {
        let text = b": hello\nevent: x\ndata: {\"a\":1}\nid: 3\n\n\n:\n\ndata:two\ndata\ndata: lines\n\ndata: unfinished\n";
        assert_eq!(read(&[text]).expect("events"), ["{\"a\":1}", "two\nlines"]);
    }

    #[test]
    fn every_line_end_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("data: a{end}{end}data: b{end}{end}");
            assert_eq!(
                read(&[text.as_bytes()]).expect("events"),
                ["a", "b"],
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_line_without_end_and_an_event_without_end_are_refused_at_their_bound() {
        let line = vec![b'x'; MAX_EVENT_BYTES];
        assert_eq!(read(&[&line]), Ok(vec![]));
        assert_eq!(read(&[&line, b"x"]), Err(EventsError::TooLong));
        let half = [b"data: ".as_slice(), &line[..MAX_EVENT_BYTES / 2], b"\n"].concat();
        assert_eq!(read(&[&half, &half]), Err(EventsError::TooLong));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(EventsError::NotUtf8));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(text in "(data: ?[a-zé\u{1F600}]{0,9}|:[a-z]{0,3}|\n|\r\n|\r){0,24}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&parts), read(&[bytes]));
        }
    }
}
