//! What a worker's card says of its models: what is offered, what is not and why, how much at once.

use super::{ModelState, ModelStatus};
use tether_wire::beat::NodeState;
use tether_wire::card::{MAX_ADAPTERS, ModelFault, ModelOffer};
use tether_wire::{Digest, ModelRef};

/// Most bytes of the words about a fault, so that it fits a card.
const MAX_REASON_BYTES: usize = 400;
/// Most bytes of all faults in a card together: less than half of what a card may have.
const MAX_FAULTS_BYTES: usize = 6 * 1024;
/// Most bytes of the name of what was to be served, so that it fits a card.
const MAX_CONFIGURED_BYTES: usize = 200;

/// What the card offers. Of a base it says which adapters are loaded over it.
pub(crate) fn offers(models: &[ModelStatus]) -> Vec<ModelOffer> {
    let mut offers: Vec<_> = models
        .iter()
        .filter_map(|model| match &model.state {
            ModelState::Serving(served) => Some(served.offer.clone()),
            ModelState::Faulted { .. } => None,
            _ if model.is_on_demand => model.known.as_ref().map(|known| known.offer.clone()),
            _ => None,
        })
        .collect();
    let warm = |base: &Digest| {
        let over = models.iter().filter_map(|model| match &model.state {
            ModelState::Serving(served) if served.base == Some(*base) => Some(served.offer.digest),
            _ => None,
        });
        over.take(MAX_ADAPTERS).collect()
    };
    for offer in &mut offers {
        offer.adapters = warm(&offer.digest);
    }
    offers
}

/// Requests that these models answer at once, within `slots`: each engine as many as it can. What
/// is beyond waits in the queue of the worker, and never unseen in an engine.
pub(crate) fn capacity(models: &[ModelStatus], slots: u32) -> u32 {
    let sequences = models.iter().fold(0_u32, |sum, model| match &model.state {
        ModelState::Serving(served) => sum.saturating_add(served.sequences),
        _ => sum,
    });
    sequences.clamp(1, slots.max(1))
}

/// What the card says of models that should be served and are not. The more there are, the shorter
/// each is told, so that there is room for what is served; all is in the log.
pub(crate) fn faults(models: &[ModelStatus]) -> Vec<ModelFault> {
    let faulted: Vec<_> = models
        .iter()
        .filter_map(|model| match &model.state {
            ModelState::Faulted { code, reason, .. } => Some((model, code, reason)),
            _ => None,
        })
        .collect();
    let half = MAX_FAULTS_BYTES / faulted.len().max(1) / 2;
    faulted
        .into_iter()
        .map(|(model, code, reason)| ModelFault {
            // By its name an orchestrator knows that it exists and is not served now.
            model: cut(
                &(model.name()).map_or_else(|| model.configured.clone(), ModelRef::to_string),
                MAX_CONFIGURED_BYTES.min(half),
            ),
            reason: cut(&format!("{code}: {reason}"), MAX_REASON_BYTES.min(half)),
        })
        .collect()
}

/// What a worker with these models is doing: it serves as soon as it can serve one of them, and
/// when nothing is under way any more, even if there is nothing to serve.
pub(crate) fn worker_state(models: &[ModelStatus], is_draining: bool) -> NodeState {
    if is_draining {
        return NodeState::Draining;
    }
    let serves = !offers(models).is_empty();
    let is_under_way = models.iter().any(|model| {
        matches!(
            model.state,
            ModelState::Fetching { .. } | ModelState::Verifying { .. } | ModelState::Loading { .. }
        )
    });
    if serves || !is_under_way {
        NodeState::Serving
    } else {
        NodeState::Starting
    }
}

/// At most `limit` bytes of a text, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Found, find};
    use super::*;

    fn status(state: ModelState) -> ModelStatus {
        ModelStatus {
            state,
            ..ModelStatus::new("m".repeat(1_000))
        }
    }

    fn fault(digest: Option<Digest>) -> ModelStatus {
        status(ModelState::Faulted {
            digest,
            code: "corrupt-file",
            reason: "é".repeat(1_000),
        })
    }

    #[test]
    fn many_faults_are_told_shortly_and_leave_room_in_the_card() {
        let many: Vec<_> = (0..64).map(|_| fault(None)).collect();
        let told = faults(&many);
        assert_eq!(told.len(), 64, "none is kept secret");
        let bytes: usize = told.iter().map(|it| it.model.len() + it.reason.len()).sum();
        assert!(bytes <= MAX_FAULTS_BYTES, "{bytes} bytes");
        assert!(told.iter().all(|it| it.reason.starts_with("corrupt-file")));
    }

    #[test]
    fn a_worker_serves_once_nothing_is_under_way_any_more() {
        let verifying = || status(ModelState::Verifying { done: 0, total: 0 });
        assert_eq!(worker_state(&[], false), NodeState::Serving);
        assert_eq!(
            worker_state(&[verifying(), fault(None)], false),
            NodeState::Starting
        );
        assert_eq!(worker_state(&[fault(None)], false), NodeState::Serving);
        assert_eq!(worker_state(&[verifying()], true), NodeState::Draining);
    }

    #[test]
    fn a_fault_of_any_length_fits_a_card() {
        let faults = faults(&[fault(None)]);
        assert!(faults[0].model.len() + faults[0].reason.len() <= 640);
        assert!(faults[0].reason.starts_with("corrupt-file: é"));
    }

    #[test]
    fn a_model_whose_engine_is_down_is_known_and_not_offered() {
        let digest = Digest([1; 32]);
        let models = [fault(Some(digest)), fault(None)];
        assert!(matches!(find(&models, &digest), Found::NotNow(_)));
        assert!(matches!(find(&models, &Digest([2; 32])), Found::Unknown));
        assert!(offers(&models).is_empty());
    }
}
