//! The addresses that a node keeps in its signed mutable record on the DHT. (NET-2) [T-REC-1] to [T-REC-3]
//!
//! The DHT itself signs the record with the node's key and orders it by sequence.

use crate::codec::{self, CodecError};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most bytes of a record: what a HyperDHT node stores. [T-REC-2]
pub const MAX_RECORD_BYTES: usize = 1_000;
/// Most addresses of a record.
pub const MAX_RECORD_ADDRESSES: usize = 16;

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the record's form, 1.
    pub v: u8,
    /// Addresses of its QUIC endpoint.
    pub addresses: Vec<SocketAddr>,
    /// URL of its relay, where it has one.
    #[serde(default)]
    pub relay: Option<String>,
}

impl Record {
    /// Encodes the record; addresses that do not fit are left out, the first ones kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut record = self.clone();
        record.addresses.truncate(MAX_RECORD_ADDRESSES);
        loop {
            let bytes = codec::encode(&record);
            if bytes.len() <= MAX_RECORD_BYTES || record.addresses.pop().is_none() {
                return bytes;
            }
        }
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// When it is too large, malformed or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let record: Self = codec::decode("record", bytes, MAX_RECORD_BYTES)?;
        codec::check_field("record", "v", record.v == 1, || {
            format!("is {}, not 1", record.v)
        })?;
        codec::check_len(
            "record",
            "addresses",
            record.addresses.len(),
            MAX_RECORD_ADDRESSES,
        )?;
        Ok(record)
    }
}
