//! The states of a job.

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Recorded, with its reservation; nothing was sent.
    Reserved,
    /// Given to a worker; nothing came back.
    Dispatched,
    /// Part of the answer was given to the tenant.
    Streaming,
    /// The whole answer was given.
    Done,
    /// It ended in an error of the mesh's.
    Failed,
    /// It ended in an error of the tenant's: this run gave nothing and adds nothing to the bill. What an
    /// earlier run under the same key gave stays billed.
    Refused,
    /// The tenant went away.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Reserved,
        Self::Dispatched,
        Self::Streaming,
        Self::Done,
        Self::Failed,
        Self::Refused,
        Self::Cancelled,
    ];

    /// Its name in the store and on screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Dispatched => "dispatched",
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the job is still under way, and its reservation with it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Reserved | Self::Dispatched | Self::Streaming)
    }

    /// Where the same request under the same key leads, as another run under a higher fence. The
    /// seed is that of the first run, so that the same answer is made again; what was given before
    /// is not billed twice.
    #[must_use]
    pub fn begun_anew(self) -> Option<Self> {
        matches!(self, Self::Failed | Self::Refused | Self::Cancelled).then_some(Self::Reserved)
    }

    /// Where another owner finds it, or the same one after a restart, under a higher fence.
    #[must_use]
    pub fn taken_over(self) -> Option<Self> {
        self.is_open().then_some(self)
    }
}
