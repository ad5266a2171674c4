//! Questions on a terminal. A line is an answer, an empty one the default: five questions need no
//! library.

use super::hidden::Hidden;
use crate::exit::Usage;
use crate::stderr;
use std::fmt::Display;
use std::io::BufRead;
use std::str::FromStr;
use tether_worker::WorkerConfig;

/// Tries at one question; then it is given up.
const TRIES: usize = 3;
/// Longest class of an accelerator that a card takes.
const MAX_CLASS_BYTES: usize = 32;

/// Asks, or does not.
pub(super) struct Questions {
    asks: bool,
}

impl Questions {
    pub(super) fn new(asks: bool) -> Self {
        Self { asks }
    }

    /// Whether anybody can be asked.
    pub(super) fn can(&self) -> bool {
        self.asks
    }

    /// Tells something beside a question.
    #[expect(clippy::unnecessary_wraps, reason = "as its siblings, which read")]
    pub(super) fn say(&mut self, words: &str) -> anyhow::Result<()> {
        if self.asks {
            stderr::line(format_args!("{words}"));
        }
        Ok(())
    }

    /// A line; nothing where it is empty or nobody is asked.
    pub(super) fn text(&mut self, question: &str) -> anyhow::Result<Option<String>> {
        if !self.asks {
            return Ok(None);
        }
        stderr::write(format!("{question}: "));
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(
                Usage("the answers ended before the questions: nothing was written").into(),
            );
        }
        let line = line.trim();
        Ok((!line.is_empty()).then(|| line.to_owned()))
    }

    /// The same, not shown while it is typed.
    pub(super) fn secret(&mut self, question: &str) -> anyhow::Result<Option<String>> {
        if !self.asks {
            return Ok(None);
        }
        // Before the question: who sees it may type.
        let hidden = Hidden::begin()?;
        stderr::write(format!("{question}: "));
        let line = hidden.line();
        stderr::line("");
        let line = line?.trim().to_owned();
        Ok((!line.is_empty()).then_some(line))
    }

    /// What was given, or an answer with which a worker starts (`set` puts it into its settings), or the
    /// default.
    pub(super) fn setting<T: FromStr + Display>(
        &mut self,
        question: &str,
        given: Option<T>,
        default: T,
        set: impl Fn(&mut WorkerConfig, &T),
    ) -> anyhow::Result<T> {
        if let Some(given) = given {
            return Ok(given);
        }
        for _ in 0..TRIES {
            match self.text(&format!("{question} [{default}]"))? {
                None => return Ok(default),
                Some(line) => match line.parse() {
                    Ok(value) => match fault(&value, &set) {
                        None => return Ok(value),
                        Some(why) => self.say(&format!("  {why}"))?,
                    },
                    Err(_) => self.say("  that is no such value")?,
                },
            }
        }
        Err(Usage("no answer could be read: nothing was written").into())
    }

    /// Yes or no; no where nobody is asked.
    pub(super) fn agrees(&mut self, question: &str) -> anyhow::Result<bool> {
        let answer = self.text(&format!("{question} [y/N]"))?;
        Ok(answer.is_some_and(|answer| matches!(answer.as_str(), "y" | "Y" | "yes")))
    }
}

/// Why no worker starts with a setting.
fn fault<T>(value: &T, set: impl Fn(&mut WorkerConfig, &T)) -> Option<String> {
    let mut config = WorkerConfig::default();
    set(&mut config, value);
    config.validate().err().map(|error| error.to_string())
}

/// The class of a card, from what NVIDIA's driver says of it: `NVIDIA H100 PCIe` is `h100-pcie`.
pub(super) fn gpu_class(information: &str) -> Option<String> {
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("Model:"))?;
    let words = model.split_whitespace().filter(|word| *word != "NVIDIA");
    let class = words.collect::<Vec<_>>().join("-").to_lowercase();
    let class: String = class
        .chars()
        .filter(char::is_ascii_graphic)
        .take(MAX_CLASS_BYTES)
        .collect();
    (!class.is_empty()).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_where_nothing_is_to_be_asked() {
        let mut ask = Questions::new(false);
        let set = |config: &mut WorkerConfig, it: &u32| config.slots = *it;
        assert_eq!(ask.setting("slots", None, 4, set).expect("the default"), 4);
        assert_eq!(ask.setting("slots", Some(7), 4, set).expect("given"), 7);
        let secret = ask.secret("token").expect("nobody is asked");
        assert_eq!(secret, None);
        assert!(
            !ask.agrees("trust?").expect("no"),
            "trust is never a default"
        );
    }

    #[test]
    fn an_answer_with_which_no_worker_starts_is_known_at_once() {
        let set = |config: &mut WorkerConfig, it: &u32| config.slots = *it;
        let why = fault(&0, set).expect("it cannot be");
        assert!(why.contains("worker.slots"), "{why}");
        assert_eq!(fault(&8, set), None);
    }

    #[test]
    fn the_class_of_a_card_is_its_name() {
        let text = "Model: \t\t NVIDIA H100 PCIe\nIRQ:   \t\t 42\n";
        assert_eq!(gpu_class(text).as_deref(), Some("h100-pcie"));
        assert_eq!(gpu_class("IRQ: 1"), None);
    }
}
