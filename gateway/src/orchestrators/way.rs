//! In which order orchestrators are asked. Pure. [T-INF-13]
//!
//! What was sent to which worker is known to the orchestrator that sent it, and to no other. So requests
//! that begin alike are asked of the same one, which knows where their beginning is warm. Since one
//! beginning may be that of nearly all requests, none gets many more than the others: consistent hashing
//! with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016), over what this gateway has under way.

use tether_wire::infer::InferRequest;
use tether_wire::{CorrelationId, Digest, NodeId};

/// Requests that an orchestrator may always have of a gateway: so few are no burden.
const ALWAYS: usize = 64;
/// And of more so many in a hundred of the mean.
const MOST_PERCENT: usize = 125;

/// By what the order is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The request: who comes again with its key comes to the same one.
    Request(CorrelationId),
    /// How its prompt begins.
    Beginning(u64),
}

impl Way {
    /// Of a request. Nobody can come again for one without a key of its caller's.
    pub(crate) fn of(request: &InferRequest) -> Self {
        let beginning = request.prefix.blocks().next();
        match beginning.filter(|_| !request.keyed) {
            Some(beginning) => Self::Beginning(beginning),
            None => Self::Request(request.correlation),
        }
    }

    /// The lowest is asked first.
    pub(crate) fn rank(&self, orchestrator: &NodeId) -> Digest {
        match self {
            Self::Request(correlation) => correlation.rank(orchestrator),
            Self::Beginning(hash) => {
                let hash = hash.to_be_bytes();
                Digest::of(&[hash.as_slice(), orchestrator.0.as_slice()].concat())
            }
        }
    }

    /// Whether many requests may have it in common.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Beginning(_))
    }
}

/// With how many requests under way an orchestrator gets no further one that begins like others, as long
/// as another one has fewer: of all that are under way at so many of them.
pub(super) fn most(under_way: usize, orchestrators: usize) -> usize {
    let hundredths = (under_way + 1).saturating_mul(MOST_PERCENT);
    ALWAYS.max(hundredths.div_ceil(100 * orchestrators.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::TenantId;
    use tether_wire::infer::{Input, Output, PREFIX_BLOCK_BYTES, Prefix};

    fn request(token: &str, text: &str, keyed: bool) -> InferRequest {
        let tenant = TenantId::new("acme").expect("valid");
        let input = Input::Text(text.to_owned());
        InferRequest {
            correlation: CorrelationId::derive(&tenant, token),
            prefix: Prefix::of(&tenant, &input, &Output::default()),
            tenant,
            retry_token: token.to_owned(),
            model: "tiny".to_owned(),
            input,
            sampling: Default::default(),
            output: Output::default(),
            keyed,
            answers: 1,
            resume: None,
        }
    }

    #[test]
    fn turns_of_a_conversation_have_one_way_and_those_of_a_key_another() {
        let turn = "x".repeat(PREFIX_BLOCK_BYTES);
        let later = format!("{turn}, and more");
        let way = |token, text: &str, keyed| Way::of(&request(token, text, keyed));
        assert_eq!(way("a", &turn, false), way("b", &later, false));
        assert_ne!(way("a", &turn, true), way("b", &turn, true));
        assert_eq!(way("a", &turn, true), way("a", &later, true));
        let other = "y".repeat(PREFIX_BLOCK_BYTES);
        assert_ne!(way("a", &turn, false), way("a", &other, false));
        assert_ne!(way("a", "short", false), way("b", "short", false));
    }

    #[test]
    fn one_beginning_of_all_requests_is_spread_over_orchestrators_once_there_are_many() {
        let nodes: Vec<NodeId> = (0..4).map(|n| NodeId([n; 32])).collect();
        let mut counts = [0_usize; 4];
        let mut ranked: Vec<usize> = (0..4).collect();
        ranked.sort_by_key(|at| Way::Beginning(7).rank(&nodes[*at]));
        for _ in 0..1_000 {
            let most = most(counts.iter().sum(), counts.len());
            let to = ranked.iter().find(|at| counts[**at] < most);
            counts[*to.expect("one has room")] += 1;
            let all: usize = counts.iter().sum();
            assert!(counts[ranked[0]] == all || all > ALWAYS);
        }
        assert!(counts.iter().all(|count| *count <= 313), "{counts:?}");
    }

    #[test]
    fn beginnings_are_spread_over_all() {
        let nodes: Vec<NodeId> = (0..4).map(|n| NodeId([n; 32])).collect();
        let mut counts = [0; 4];
        for hash in 0..4_000 {
            let first = (0..4).min_by_key(|at| Way::Beginning(hash).rank(&nodes[*at]));
            counts[first.expect("some")] += 1;
        }
        assert!(
            counts.iter().all(|it| (900..1_100).contains(it)),
            "{counts:?}"
        );
    }
}
