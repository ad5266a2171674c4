//! Who announced under a topic's key: asked of the DHT nodes that are closest to it.
//!
//! The library has a lookup of its own, which makes room for as many peers as an answer claims to
//! hold: ten bytes of any DHT node would end the process. Found by the fuzz target `datagram`. So
//! the nodes are found by the library and asked by us, and an answer is measured before it is
//! decoded.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peeroxide_dht::hyperdht_messages::{LOOKUP, decode_lookup_raw_reply_from_bytes};
use peeroxide_dht::rpc::{DhtError, DhtHandle, UserRequestParams};
use tether_wire::NodeId;

/// Least bytes of a peer in an answer: its key, and the number of its relays.
const PEER_BYTES: u64 = 33;
/// Milliseconds that a node has to answer, which has just answered, and tries beyond the first.
const ANSWER_TIMEOUT_MS: u64 = 1_000;
const RETRIES: u32 = 1;

/// Keys that were announced, each as often as nodes know of it.
pub(super) async fn lookup(dht: &DhtHandle, target: [u8; 32]) -> Result<Vec<NodeId>, DhtError> {
    let closest = dht.find_node(target).await?;
    let ask = |host: String, port: u16| async move {
        let mut question = UserRequestParams::default();
        question.command = LOOKUP;
        question.target = Some(target);
        question.timeout_ms = Some(ANSWER_TIMEOUT_MS);
        question.retries = Some(RETRIES);
        let answer = dht.request(question, &host, port).await;
        // A node that went meanwhile is none.
        answer.ok()?.value
    };
    let mut answers: FuturesUnordered<_> = closest
        .into_iter()
        .map(|node| ask(node.from.host, node.from.port))
        .collect();
    let mut keys = Vec::new();
    while let Some(answer) = answers.next().await {
        keys.extend(answer.iter().flat_map(|answer| announced(answer)));
    }
    Ok(keys)
}

/// The keys in one node's answer; nothing in one that claims more peers than it has bytes for.
pub(super) fn announced(answer: &[u8]) -> Vec<NodeId> {
    let fits = claimed(answer).is_some_and(|count| count <= answer.len() as u64 / PEER_BYTES);
    let decoded = fits.then(|| decode_lookup_raw_reply_from_bytes(answer).ok());
    let peers = decoded.flatten().map(|reply| reply.peers);
    let keys = peers.into_iter().flatten();
    keys.map(|peer| NodeId(peer.public_key)).collect()
}

/// How many peers an answer claims to hold: a number of the compact encoding.
fn claimed(answer: &[u8]) -> Option<u64> {
    let (first, rest) = answer.split_first()?;
    Some(match first {
        0xfd => u64::from(u16::from_le_bytes(*rest.first_chunk()?)),
        0xfe => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        0xff => u64::from_le_bytes(*rest.first_chunk()?),
        few => u64::from(*few),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peeroxide_dht::hyperdht_messages::{
        HyperPeer, LookupRawReply, encode_lookup_raw_reply_to_bytes,
    };

    fn answer(count: u8) -> Vec<u8> {
        let peer = |n| HyperPeer {
            public_key: [n; 32],
            relay_addresses: Vec::new(),
        };
        let peers = (0..count).map(peer).collect();
        encode_lookup_raw_reply_to_bytes(&LookupRawReply { peers, bump: 0 }).expect("encoded")
    }

    #[test]
    fn every_announced_key_is_read() {
        assert_eq!(announced(&answer(0)), []);
        assert_eq!(announced(&answer(2)), [NodeId([0; 32]), NodeId([1; 32])]);
        assert_eq!(announced(&answer(255)).len(), 255);
    }

    #[test]
    fn an_answer_that_claims_more_than_it_holds_costs_nothing() {
        let mut most = vec![0xff];
        most.extend(u64::MAX.to_le_bytes());
        let mut many = vec![0xff];
        many.extend((1_u64 << 40).to_le_bytes());
        let mut one_more = answer(1);
        one_more[0] = 2;
        for answer in [most, many, one_more, vec![0xfe, 1], Vec::new()] {
            assert_eq!(announced(&answer), [], "{answer:?}");
        }
    }
}
