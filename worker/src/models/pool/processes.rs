//! Into how many processes a model is loaded.
//!
//! Further processes are for what no other model needs. Each other model is counted with what it has
//! when it is loaded, with what it must have when it is not, and as an equal share of the budget while
//! nothing is known of it. More than such a share no model takes by itself: the first that is loaded
//! should leave something to divide to the others, too.

use super::{Amount, Pool, State};

/// How many processes a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    /// So many, and it is not loaded with fewer.
    Exactly(u32),
    /// One, and as many more as there is room for that nobody needs; beyond so many they are of no
    /// use.
    UpTo(u32),
}

impl Processes {
    /// As few as it is loaded with.
    pub(crate) fn least(self) -> u32 {
        match self {
            Self::Exactly(processes) => processes.max(1),
            Self::UpTo(_) => 1,
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self::Exactly(1)
    }
}

impl Pool {
    /// Into how many processes a model is loaded now that its turn has come.
    pub(super) fn divide(&self, model: usize) -> u32 {
        let most = match self.models[model].need.processes {
            Processes::Exactly(processes) => return processes.max(1),
            Processes::UpTo(most) => most.max(1),
        };
        let free = self.free_of_pinned();
        let one = self.models[model].takes(1, &free);
        let all = self.models.iter().filter(|it| it.state != State::Absent);
        let share = self.limits.memory.part(all.count());
        let needed = |at: usize| match self.models[at].state {
            State::Unknown => share.clone(),
            // Nobody waits for what can never be loaded.
            State::Absent => Amount::default(),
            State::Cold if self.never_fits(at).is_some() => Amount::default(),
            _ => self.takes(at),
        };
        let others = (0..self.models.len()).filter(|at| *at != model);
        let others = others.fold(Amount::default(), |sum, at| sum.plus(&needed(at)));
        let room = self.limits.memory.beyond(&others).at_most(&share);
        room.holds(&one).clamp(1, most)
    }
}
