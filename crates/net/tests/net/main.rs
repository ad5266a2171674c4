//! Real nodes on loopback: they find each other over a real HyperDHT and link over real QUIC.

mod bounds;
mod calls;
mod finding;
mod herald;
mod links;
mod membership;
mod mesh;
mod quiet;
mod raw;
mod refusals;
mod relay;
mod uplinks;
