//! Whether a grammar in Lark's language intersects terminals (`A & B`), which is an extension of the
//! library's. Pure.
//!
//! What the product of terminals costs is not bounded by anything that the library counts: a few dozen
//! bytes keep it busy for minutes. So they are refused, and to know them from an `&` in a string, the
//! text is read as the library's lexer does. Where it would refuse, an `&` counts wherever it stands.

/// Whether there is one.
pub(super) fn any(lark: &str) -> bool {
    let mut rest = lark.as_bytes();
    while let Some(first) = rest.first() {
        let length = match first {
            b'&' => return true,
            b'#' => line(rest),
            b'/' if rest.get(1) == Some(&b'/') => line(rest),
            b'"' => quoted(rest, b'"', |byte| byte < 0x20 || byte == 0x7f),
            b'/' => quoted(rest, b'/', |_| false),
            b'<' => special(rest),
            _ => Some(1),
        };
        match length {
            Some(length) => rest = &rest[length..],
            None => return rest.contains(&b'&'),
        }
    }
    false
}

/// The bytes of a comment, which ends with its line.
fn line(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|byte| *byte == b'\n');
    Some(end.unwrap_or(text.len()))
}

/// The bytes of a string or a regular expression; nothing where it has no end.
fn quoted(text: &[u8], end: u8, is_wrong: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            byte if byte == end => return Some(at + 1),
            b'\\' if *text.get(at + 1)? == b'\n' => return None,
            b'\\' => at += 2,
            byte if is_wrong(byte) => return None,
            _ => at += 1,
        }
    }
}

/// The bytes of a special token, `<name>`; of the sign alone where it is none.
fn special(text: &[u8]) -> Option<usize> {
    let is_over = |byte: &u8| matches!(byte, b'<' | b'>') || byte.is_ascii_whitespace();
    let length = text[1..]
        .iter()
        .position(is_over)
        .filter(|length| *length > 0);
    match length {
        Some(length) if text[length + 1] == b'>' => Some(length + 2),
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::any;

    #[test]
    fn only_the_operator_is_one() {
        for text in [
            "start: A\nA: /a+/ & /b+/",
            "start: \"a\" // it's \"\nA: /x/ & B",
            "start: \"a\" # \"\nA: B & C",
            "start: <a\"b> & \"c\"",
            "start: /\"/ & /\"/",
            r#"start: "\"" & "\"""#,
            r#"start: "\\" & "a""#,
            r"start: /\// & /a/",
            "start: %json {\"a\": \"b\"} & A",
            "start: < \"a\" & \"b\"",
            "start: \"a & b",
            "start: /a & b",
            "start: \"a\nb\" & \"c\"",
            "&",
        ] {
            assert!(any(text), "{text:?}");
        }
        for text in [
            "",
            "start: \"a & b\" /c & d/ // e & f",
            "start: \"\\\"&\" # & \"\nA: /\\/&/ <&>",
            "start: %json {\"pattern\": \"a&b\", \"enum\": [\"/&\"]}",
            "start: A~3 | ~B",
        ] {
            assert!(!any(text), "{text:?}");
        }
    }
}
