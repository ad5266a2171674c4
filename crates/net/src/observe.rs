//! What this crate counts. The metrics' names live in `tether-telemetry`; this is the seam.

use tether_wire::Role;
use tether_wire::link::RefusalCode;

/// Told what happens between nodes. Every method is called on hot paths: count and return.
pub trait NetObserver: Send + Sync + 'static {
    /// A link came up.
    fn link_up(&self, _role: Role) {}
    /// A link went down.
    fn link_down(&self, _role: Role) {}
    /// A link was refused, by us.
    fn link_refused(&self, _reason: RefusalCode) {}
    /// A dial ended.
    fn dialled(&self, _ok: bool) {}
    /// A question to the DHT ended: announce, lookup, publish, resolve.
    fn dht(&self, _what: &'static str, _ok: bool) {}
    /// An incoming call was refused because the peer has too many.
    fn call_refused(&self) {}
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl NetObserver for Unobserved {}
