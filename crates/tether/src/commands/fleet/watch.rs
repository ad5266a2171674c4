//! The fleet again and again, whatever becomes of the orchestrator.

use super::ListArgs;
use crate::exit::{NotReady, words};
use crate::signals::Signals;
use crate::stderr;
use crate::stdout;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Pause between two pictures.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shows it until interrupted, which is how it ends well. That the orchestrator cannot be reached
/// at first is an error: it may be the wrong one. Later it is said, and tried again.
pub(super) async fn run(list: &ListArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = show(list) => ended,
        _ = signals.next() => Ok(()),
    }
}

async fn show(list: &ListArgs) -> anyhow::Result<()> {
    let screen = !list.json && std::io::stdout().is_terminal();
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<String> = None;
    let mut is_lost = false;
    loop {
        rounds.tick().await;
        // Found anew each time: a mesh that was restarted may be elsewhere.
        let picture = match list.admin.open() {
            Ok(admin) => list.picture(&admin).await,
            Err(error) => Err(error),
        };
        match picture {
            Ok(picture) => {
                if std::mem::take(&mut is_lost) && !screen {
                    stderr::line("the orchestrator answers again");
                }
                if screen {
                    stdout::write(redrawn(&picture, height()))?;
                } else if list.json || last.is_none() {
                    stdout::write(&picture)?;
                } else {
                    stdout::write(format!("\n{picture}"))?;
                }
                last = Some(picture);
            }
            Err(error) if last.is_some() && error.downcast_ref::<NotReady>().is_some() => {
                let pause = INTERVAL.as_secs();
                let why = words(&error);
                let lost = format!("no answer, tried again every {pause} s: {why}");
                if screen {
                    let before = last.as_deref().unwrap_or_default();
                    let shown = format!("{lost}\n\nbefore:\n{before}");
                    stdout::write(redrawn(&shown, height()))?;
                } else if !is_lost {
                    stderr::line(&lost);
                }
                is_lost = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lines of the terminal, where that is known.
fn height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0).then_some(usize::from(size.ws_row))
}

/// A picture in the place of the one before: each line takes the place of another, so that nothing
/// flickers, and what was below is cleared. What would scroll is cut off.
fn redrawn(picture: &str, height: Option<usize>) -> String {
    let count = picture.lines().count();
    let room = height.map_or(count, |height| height.saturating_sub(1));
    let mut text = "\x1b[H".to_owned();
    let whole = count <= room;
    for line in picture
        .lines()
        .take(if whole { count } else { room.saturating_sub(1) })
    {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    if !whole {
        text.push_str("... more than this terminal shows\x1b[K\n");
    }
    text + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_takes_the_place_of_the_one_before_line_by_line() {
        let shown = redrawn("a\nb\n", None);
        assert_eq!(shown, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        let cut = redrawn("a\nb\nc\nd\n", Some(4));
        assert!(cut.contains("a\x1b[K\nb\x1b[K\n... more"), "{cut:?}");
        assert_eq!(redrawn("a\nb\nc\n", Some(4)).matches('\n').count(), 3);
    }
}
