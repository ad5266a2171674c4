//! The file of control messages: a CBOR list of byte strings, replaced as a whole.

use crate::disk;
use serde_bytes::{ByteBuf, Bytes};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tether_wire::codec::{self, CodecError};
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::membership::MAX_FACTS;

/// The name of the file in a node's data folder that holds what it was told of members.
pub const MEMBERSHIP_FILE: &str = "membership.cbor";
/// Most bytes that are read: what all bounds together allow, and the lengths of it.
const MAX_BYTES: usize = MAX_FACTS * (MAX_CONTROL_BYTES + 16);

pub(super) fn read(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let path = folder.join(MEMBERSHIP_FILE);
    let wrong = |why: String| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds whom this node must not trust, and is damaged ({why}): put back a copy, or delete it if its orchestrators are to be believed, which send it again",
                path.display()
            ),
        )
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    decode(&bytes).map_err(|error| wrong(error.to_string()))
}

/// The encoded control messages of a file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CodecError> {
    let entries: Vec<ByteBuf> = codec::decode("list of control messages", bytes, MAX_BYTES)?;
    Ok(entries.into_iter().map(ByteBuf::into_vec).collect())
}

/// The bytes of a file.
pub(crate) fn encode<T: AsRef<[u8]>>(entries: &[T]) -> Vec<u8> {
    let entries: Vec<&Bytes> = (entries.iter()).map(|it| Bytes::new(it.as_ref())).collect();
    codec::encode(&entries)
}

pub(super) fn write(folder: &Path, sealed: &[Arc<[u8]>]) -> io::Result<()> {
    disk::replace(folder, MEMBERSHIP_FILE, &encode(sealed))
}
