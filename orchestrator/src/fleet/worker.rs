//! A worker as placement and people see it.

use crate::score::Traits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::{Beat, Digest, ModelRef, NodeId, Region, Tier};

/// What workers say of themselves that changes rarely. Those who say the same share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offering {
    /// Where they stand.
    pub region: Region,
    /// What they have.
    pub card: WorkerCard,
}

impl Offering {
    /// The place of an artifact among the models.
    pub(crate) fn position(&self, model: &ModelRef, digest: &Digest) -> Option<u32> {
        let is_it = |offer: &ModelOffer| offer.digest == *digest && offer.model == *model;
        let at = self.card.models.iter().position(is_it)?;
        u32::try_from(at).ok()
    }
}

/// What changes with each beat, and with what this orchestrator itself does: numbers that are read
/// and written without a lock, each by itself, and shared by all views of a worker. All of it is in
/// one line of the processor's cache, since placement reads it of workers that are in none.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Live {
    epoch: AtomicU64,
    heard_mono_ms: AtomicU64,
    redial_mono_ms: AtomicU64,
    queue_depth: AtomicU32,
    first_token_ms: AtomicU32,
    /// Requests that this orchestrator has running there.
    ours: AtomicU32,
    /// The most of them since the last beat.
    peak: AtomicU32,
    /// Requests of others that ran or waited there when it was last heard.
    others: AtomicU32,
    suspect: AtomicBool,
    withdrawn: AtomicBool,
}

impl Live {
    /// Takes a beat over, and says whether it shows more than load: it is well again, or another
    /// process.
    pub(crate) fn beat(&self, beat: &Beat, heard_mono_ms: u64) -> bool {
        let set = |at: &AtomicU32, value| at.store(value, Ordering::Relaxed);
        set(&self.queue_depth, beat.queue_depth);
        set(&self.first_token_ms, beat.first_token_ms);
        // What we had given it is among what it says that it has, also what ended while the beat was
        // on its way.
        let peak = self.peak.swap(self.ours(), Ordering::Relaxed);
        let said = beat.in_flight.saturating_add(beat.queue_depth);
        set(&self.others, said.saturating_sub(peak));
        self.heard_mono_ms.store(heard_mono_ms, Ordering::Relaxed);
        let is_new = self.epoch.load(Ordering::Relaxed) != beat.epoch;
        if is_new {
            self.epoch.store(beat.epoch, Ordering::Relaxed);
        }
        self.set_well() || is_new
    }

    /// Says whether it was suspect.
    pub(crate) fn set_well(&self) -> bool {
        let was = self.suspect.load(Ordering::Relaxed);
        if was {
            self.redial_mono_ms.store(0, Ordering::Relaxed);
            self.suspect.store(false, Ordering::Relaxed);
        }
        was
    }

    pub(crate) fn set_suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Not to be dialled before `until`. Those who find out together find out once.
    pub(crate) fn set_redial(&self, now_mono_ms: u64, until: u64) -> bool {
        let due = now_mono_ms >= self.redial_mono_ms.load(Ordering::Relaxed);
        if due {
            self.redial_mono_ms.store(until, Ordering::Relaxed);
        }
        due
    }

    /// It went, or takes no more work: also who holds an older snapshot chooses it no more.
    pub(crate) fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Relaxed);
    }

    pub(crate) fn ours(&self) -> u32 {
        self.ours.load(Ordering::Relaxed)
    }
}

/// A worker at one moment; its load and whether it is well are those of now.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub(crate) id: NodeId,
    pub(crate) offering: Arc<Offering>,
    pub(crate) live: Arc<Live>,
    /// How far it is believed, by its grant.
    pub tier: Tier,
    /// What it is doing.
    pub state: NodeState,
}

impl WorkerView {
    /// Which worker.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it stands.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.offering.region
    }

    /// What it has to offer.
    #[must_use]
    pub fn card(&self) -> &WorkerCard {
        &self.offering.card
    }

    /// The boot epoch of its process.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.live.epoch.load(Ordering::Relaxed)
    }

    /// When it was heard, on the clock that only goes forward.
    #[must_use]
    pub fn heard_mono_ms(&self) -> u64 {
        self.live.heard_mono_ms.load(Ordering::Relaxed)
    }

    /// Brings what is read of it into the processor's cache.
    pub(crate) fn fetch(self: &Arc<Self>) {
        let live = self.live.heard_mono_ms.load(Ordering::Relaxed);
        std::hint::black_box((
            live,
            Arc::strong_count(self),
            self.tier,
            self.offering.card.capacity,
        ));
    }

    /// Whether it may be dead.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.live.is_suspect()
    }

    /// When it may be dialled, on the clock that only goes forward; 0 is any time.
    #[must_use]
    pub fn redial_mono_ms(&self) -> u64 {
        self.live.redial_mono_ms.load(Ordering::Relaxed)
    }

    /// Requests that waited there when it was last heard.
    #[must_use]
    pub fn queue_depth(&self) -> u32 {
        self.live.queue_depth.load(Ordering::Relaxed)
    }

    /// Milliseconds to the first token that it saw of late; 0 is unknown.
    #[must_use]
    pub fn first_token_ms(&self) -> u32 {
        self.live.first_token_ms.load(Ordering::Relaxed)
    }

    /// Requests that this orchestrator has running there, exactly and now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.live.ours()
    }

    /// Requests that run or wait there by the best knowledge: those of others when it was last heard,
    /// and ours of now.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.in_flight().saturating_add(self.others())
    }

    /// Requests that it can be given until it has all its slots full and this share of them waiting.
    pub(crate) fn places(&self, ahead_percent: u32) -> u32 {
        let slots = self.card().capacity.max(1);
        let ahead = u64::from(slots) * u64::from(ahead_percent) / 100;
        let most = slots.saturating_add(u32::try_from(ahead).unwrap_or(u32::MAX).max(1));
        most.saturating_sub(self.load())
    }

    /// Whether it has a slot for one more at once, by the best knowledge.
    pub(crate) fn is_free(&self) -> bool {
        self.load() < self.card().capacity.max(1)
    }

    /// Requests of others that ran or waited there when it was last heard.
    pub(crate) fn others(&self) -> u32 {
        self.live.others.load(Ordering::Relaxed)
    }

    /// What placement weighs, for one of its models, with so much to do.
    pub(crate) fn traits<'a>(&'a self, offer: &ModelOffer, load: f32) -> Traits<'a> {
        let card = self.card();
        Traits {
            region: self.region(),
            digest: offer.digest,
            gpu_class: &card.gpu_class,
            load,
            capacity: card.capacity,
            warm: offer.warm,
            tier: self.tier,
            price_per_1k_micro: card.price_per_1k_micro,
            first_token_ms: self.first_token_ms(),
        }
    }

    /// Counts one more request as running there, until the guard is dropped.
    #[must_use]
    pub fn occupy(&self) -> InFlight {
        let before = self.live.ours.fetch_add(1, Ordering::Relaxed);
        let _ = (self.live.peak).fetch_max(before.saturating_add(1), Ordering::Relaxed);
        InFlight(self.live.clone())
    }

    /// Whether a request can be given to it: it has not gone meanwhile, and need not be dialled
    /// where it could not be reached a moment ago. A link that is up is as good as a heartbeat.
    #[must_use]
    pub fn may_be_asked(&self, is_linked: impl FnOnce() -> bool, now_mono_ms: u64) -> bool {
        !self.is_withdrawn() && (now_mono_ms >= self.redial_mono_ms() || is_linked())
    }

    /// Why nothing is given to it; nothing when it is routable.
    #[must_use]
    pub fn unroutable(&self) -> Option<String> {
        let card = self.card();
        match self.state {
            NodeState::Serving if card.models.is_empty() => Some(card.faults.first().map_or_else(
                || "it offers no model".to_owned(),
                |fault| {
                    format!(
                        "it offers no model; {} is not served: {}",
                        fault.model, fault.reason
                    )
                },
            )),
            NodeState::Serving if self.redial_mono_ms() > 0 => Some(
                "suspect: its link broke and was not had again; asked when it links or is heard, \
                 and otherwise tried every few seconds"
                    .to_owned(),
            ),
            NodeState::Serving if self.is_suspect() => {
                Some("suspect: it did not answer; chosen only when nothing else is left".to_owned())
            }
            NodeState::Serving => None,
            state => Some(format!("it is {}", state.as_str())),
        }
    }

    /// Its state as people see it.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            _ if self.is_suspect() => SUSPECT,
            NodeState::Serving if self.card().models.is_empty() => UNAVAILABLE,
            state => state.as_str(),
        }
    }

    /// Whether it went or takes no more work, whatever the snapshot says.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.live.withdrawn.load(Ordering::Relaxed)
    }
}

/// The state of a worker that takes work and has no model for it: `serving` would be untrue.
pub const UNAVAILABLE: &str = "unavailable";
/// The state of a worker that may be dead.
pub const SUSPECT: &str = "suspect";

/// One request that runs at a worker; dropping it ends the count, on every path.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.ours.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::fleet::Roster;
    use crate::testing::{beat, id, there};

    #[test]
    fn places_are_the_slots_and_one_at_hand_less_what_runs_there_for_anybody() {
        let mut roster = Roster::default();
        there(&mut roster, 1, |_| ());
        let fleet = roster.snapshot();
        let worker = fleet.worker(&id(1)).expect("there");
        assert_eq!(
            (worker.places(25), worker.places(100), worker.places(0)),
            (5, 8, 5)
        );
        let ours = [worker.occupy(), worker.occupy()];
        assert_eq!(worker.places(25), 3);
        let mut said = beat(2);
        (said.in_flight, said.queue_depth) = (3, 1);
        worker.live.beat(&said, 0);
        assert_eq!(worker.places(25), 1, "two are others'");
        drop(ours);
        assert_eq!(worker.places(25), 3, "at once, and not with the next beat");
        worker.live.beat(&said, 0);
        assert_eq!(
            worker.places(25),
            3,
            "some ended while the beat was on its way"
        );
        worker.live.beat(&said, 0);
        assert_eq!(worker.places(25), 1, "none of them is ours");
    }
}
