//! What the DHT's library makes of datagrams, for the fuzz targets (feature `testing`): its decoders
//! are not ours, and strangers reach them first.

use super::lookup;
use peeroxide_dht::hyperdht_messages as values;
use peeroxide_dht::messages::{self, Ipv4Peer, Message, Request, Response};

/// Reads a datagram, and its value as each kind of message that may be in one; how many of them it
/// was.
pub(crate) fn read(bytes: &[u8]) -> usize {
    let value = match messages::decode_message(bytes) {
        Ok(Message::Request(request)) => request.value,
        Ok(Message::Response(response)) => response.value,
        Err(_) => return as_value(bytes),
    };
    1 + value.map_or(0, |value| as_value(&value))
}

fn as_value(bytes: &[u8]) -> usize {
    [
        values::decode_hyper_peer_from_bytes(bytes).is_ok(),
        values::decode_announce_from_bytes(bytes).is_ok(),
        !lookup::announced(bytes).is_empty(),
        values::decode_mutable_put_request_from_bytes(bytes).is_ok(),
        values::decode_mutable_get_response_from_bytes(bytes).is_ok(),
        values::decode_mutable_signable_from_bytes(bytes).is_ok(),
        values::decode_handshake_from_bytes(bytes).is_ok(),
        values::decode_holepunch_msg_from_bytes(bytes).is_ok(),
        values::decode_noise_payload_from_bytes(bytes).is_ok(),
        values::decode_holepunch_payload_from_bytes(bytes).is_ok(),
    ]
    .into_iter()
    .filter(|taken| *taken)
    .count()
}

/// Datagrams of nodes that mean well, by name.
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let peer = |port| Ipv4Peer {
        host: "192.0.2.7".to_owned(),
        port,
    };
    let request = |value| Request {
        tid: 7,
        to: peer(4_433),
        id: Some([1; 32]),
        token: Some([2; 32]),
        internal: false,
        command: 2,
        target: Some([3; 32]),
        value,
    };
    let response = |value| Response {
        tid: 7,
        to: peer(4_433),
        id: Some([1; 32]),
        token: None,
        closer_nodes: vec![peer(4_434), peer(4_435)],
        error: 0,
        value,
    };
    let put = values::encode_mutable_put_request_to_bytes(&values::MutablePutRequest {
        public_key: [4; 32],
        seq: 9,
        value: vec![5; 40],
        signature: [6; 64],
    });
    let got = values::encode_mutable_get_response_to_bytes(&values::MutableGetResponse {
        seq: 9,
        value: vec![5; 40],
        signature: [6; 64],
    });
    let hyper_peer = values::encode_hyper_peer_to_bytes(&values::HyperPeer {
        public_key: [4; 32],
        relay_addresses: vec![peer(4_436)],
    });
    let value = |bytes: Result<Vec<u8>, _>| Some(bytes.expect("a sample is encoded"));
    let asked = |value| messages::encode_request_to_bytes(&request(value));
    let answered = |value| messages::encode_response_to_bytes(&response(value));
    [
        ("request", asked(None)),
        ("request-put", asked(value(put))),
        ("response", answered(None)),
        ("response-get", answered(value(got))),
        ("response-peer", answered(value(hyper_peer))),
    ]
    .map(|(name, bytes)| (name, bytes.expect("a sample is encoded")))
    .to_vec()
}
