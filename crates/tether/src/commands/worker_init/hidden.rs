//! A line that is not shown while it is typed: a secret.
//!
//! Keys that end or mend a line are read here, so that the terminal is as it was whatever is pressed.
//! A line may be longer than the 4,095 bytes that a terminal takes by itself.

use crate::exit::Usage;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Stdin};

/// Most bytes of a line.
const MAX_BYTES: usize = 64 * 1024;

/// A terminal that shows nothing of what is typed, until this is dropped.
pub(super) struct Hidden {
    stdin: Stdin,
    before: Option<Termios>,
}

impl Hidden {
    /// Where standard input is no terminal nothing is shown anyway.
    pub(super) fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut hidden = before.clone();
            hidden.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
            tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
        }
        Ok(Self { stdin, before })
    }

    /// The line.
    pub(super) fn line(&self) -> anyhow::Result<String> {
        typed(self.stdin.lock().bytes())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Whoever is gone needs no terminal.
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, before);
        }
    }
}

fn typed(keys: impl Iterator<Item = io::Result<u8>>) -> anyhow::Result<String> {
    const ENDED: Usage = Usage("the answers ended before the questions: nothing was written");
    let mut line = Vec::new();
    for key in keys {
        match key? {
            b'\r' | b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            // ^C, as if the terminal had seen it.
            3 => return Err(Usage("stopped: nothing was written").into()),
            // ^D
            4 if line.is_empty() => return Err(ENDED.into()),
            8 | 127 => drop(line.pop()),
            // ^U
            21 => line.clear(),
            key if line.len() < MAX_BYTES => line.push(key),
            _ => return Err(Usage("that is too long: nothing was written").into()),
        }
    }
    Err(ENDED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> anyhow::Result<String> {
        typed(text.bytes().map(Ok))
    }

    #[test]
    fn a_line_can_be_mended_and_given_up() {
        assert_eq!(keys("abc\nrest").expect("a line"), "abc");
        assert_eq!(keys("wrong\u{15}right\r").expect("a line"), "right");
        assert_eq!(keys("ab\u{7f}c\n").expect("a line"), "ac");
        for given_up in ["ab\u{3}", "\u{4}", "no end"] {
            let error = keys(given_up).expect_err("given up").to_string();
            assert!(error.contains("nothing was written"), "{error}");
        }
        assert!(keys(&"a".repeat(MAX_BYTES + 1)).is_err());
    }
}
