//! A peer that does as it likes: bare QUIC, with whatever bytes a test gives it.

use crate::mesh::{TestMesh, TestNode};
use iroh::endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr};
use tether_net::testing::{region, within};
use tether_wire::codec;
use tether_wire::link::{ALPN, Hello, HelloAnswer, MAX_HELLO_BYTES, Refusal};
use tether_wire::{NodeKey, PROTOCOL_MAJOR, Role};

pub(crate) async fn endpoint(key: &NodeKey, alpn: &[u8]) -> Endpoint {
    let config = QuicTransportConfig::builder().max_concurrent_bidi_streams(VarInt::from_u32(8));
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&key.seed()))
        .alpns(vec![alpn.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .transport_config(config.build())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("an address");
    endpoint.bind().await.expect("an endpoint")
}

/// Dials a node's endpoint.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    to: &TestNode,
    alpn: &[u8],
) -> Result<Connection, String> {
    let id = EndpointId::from_bytes(&to.id().0).expect("a key");
    let addresses = to.node.addresses().into_iter().map(TransportAddr::Ip);
    let address = EndpointAddr::from_parts(id, addresses);
    let dialled = endpoint.connect(address, alpn).await;
    dialled.map_err(|error| format!("{error:#}"))
}

pub(crate) fn hello(mesh: &TestMesh, key: &NodeKey, role: Role) -> Hello {
    Hello {
        major: PROTOCOL_MAJOR,
        minor: 0,
        mesh: mesh.mesh.id,
        role,
        region: region(),
        grant: Some(mesh.grant(key.id(), role, |_| ())),
        invite: None,
        agent: "raw".into(),
        boot: 0,
        observed: None,
    }
}

pub(crate) fn block(bytes: &[u8]) -> Vec<u8> {
    let mut block = u32::try_from(bytes.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    block.extend_from_slice(bytes);
    block
}

async fn answer(recv: &mut RecvStream) -> HelloAnswer {
    let mut len = [0; 4];
    recv.read_exact(&mut len).await.expect("an answer");
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    recv.read_exact(&mut bytes).await.expect("a whole answer");
    codec::decode("answer", &bytes, MAX_HELLO_BYTES).expect("a good answer")
}

/// Sends these bytes as the greeting and reads the answer.
pub(crate) async fn greet(connection: &Connection, bytes: &[u8]) -> (SendStream, HelloAnswer) {
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    send.write_all(bytes).await.expect("sent");
    let answer = within(answer(&mut recv)).await;
    (send, answer)
}

/// A connection that is admitted, in the given role.
pub(crate) async fn admitted(
    mesh: &TestMesh,
    key: &NodeKey,
    role: Role,
    to: &TestNode,
) -> (Endpoint, Connection) {
    let endpoint = endpoint(key, ALPN).await;
    let connection = dial(&endpoint, to, ALPN).await.expect("connected");
    let hello = codec::encode(&hello(mesh, key, role));
    let (mut send, answer) = greet(&connection, &block(&hello)).await;
    assert!(matches!(answer, HelloAnswer::Welcome(_)), "{answer:?}");
    send.finish().expect("open");
    (endpoint, connection)
}

pub(crate) fn refusal(answer: HelloAnswer) -> Refusal {
    match answer {
        HelloAnswer::Refused(refusal) => refusal,
        HelloAnswer::Welcome(hello) => panic!("welcomed by {hello:?}"),
    }
}
