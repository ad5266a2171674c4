//! Frames as bytes. Pure. [T-RPC-1] [T-RPC-2]

use bytes::{Buf, BytesMut};
use tether_wire::rpc::{Kind, MAX_FRAME_BYTES};

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;
/// Bytes before a frame's payload: length and kind.
pub(crate) const HEADER_BYTES: usize = LENGTH_BYTES + 1;
/// Most bytes of an item.
pub(crate) const MAX_ITEM_BYTES: usize = MAX_FRAME_BYTES - 1;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("{len} bytes, at most {limit} are allowed here")]
    TooLarge { len: usize, limit: usize },
    #[error("an empty frame")]
    Empty,
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
}

/// Takes a block (length, then that many bytes) from the front of the buffer, once it is all there.
/// More than `limit` bytes are refused by the length alone.
pub(crate) fn take_block(
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Option<BytesMut>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*length) as usize;
    if len > limit {
        return Err(FrameError::TooLarge { len, limit });
    }
    if buffer.len() < LENGTH_BYTES + len {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(len)))
}

/// Takes a frame with a payload of at most `limit` bytes from the front of the buffer.
pub(crate) fn take(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let limit = limit.min(MAX_ITEM_BYTES);
    let Some(block) = take_block(buffer, limit + 1).map_err(|error| match error {
        FrameError::TooLarge { len, limit } => FrameError::TooLarge {
            len: len - 1,
            limit: limit - 1,
        },
        other => other,
    })?
    else {
        return Ok(None);
    };
    let (&kind, payload) = block.split_first().ok_or(FrameError::Empty)?;
    let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
    Ok(Some(Frame {
        kind,
        payload: payload.to_vec(),
    }))
}

/// Appends a block.
pub(crate) fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("callers bound what they send far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a frame. Callers have checked the payload against [`MAX_ITEM_BYTES`].
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let len = u32::try_from(payload.len() + 1).expect("payloads are at most MAX_ITEM_BYTES");
    out.reserve(HEADER_BYTES + payload.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut bytes = Vec::new();
        put(&mut bytes, Kind::Item, b"hello");
        put(&mut bytes, Kind::End, b"");
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in bytes {
            buffer.extend_from_slice(&[byte]);
            while let Some(frame) = take(&mut buffer, 100).expect("frames") {
                frames.push((frame.kind, frame.payload));
            }
        }
        assert_eq!(
            frames,
            [(Kind::Item, b"hello".to_vec()), (Kind::End, Vec::new())]
        );
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
        let mut exact = Vec::new();
        put(&mut exact, Kind::Item, &[0; 10]);
        assert!(matches!(take(&mut exact[..].into(), 10), Ok(Some(_))));
        let mut buffer = BytesMut::from(&exact[..4]);
        assert_eq!(
            take(&mut buffer, 9),
            Err(FrameError::TooLarge { len: 10, limit: 9 })
        );
        let mut huge = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(
            take(&mut huge, usize::MAX),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn empty_frames_and_unknown_kinds_are_refused() {
        assert_eq!(
            take(&mut [0, 0, 0, 0][..].into(), 10),
            Err(FrameError::Empty)
        );
        assert_eq!(
            take(&mut [0, 0, 0, 1, 99][..].into(), 10),
            Err(FrameError::UnknownKind(99))
        );
    }

    #[test]
    fn random_bytes_never_panic_and_never_grow_the_buffer() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut bytes = vec![0; rng.random_range(0..64)];
            rng.fill(&mut bytes[..]);
            if rng.random_bool(0.5) {
                bytes.iter_mut().take(3).for_each(|byte| *byte = 0);
            }
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = take(&mut buffer, 256) {
                assert!(frame.payload.len() < 64);
            }
            assert!(buffer.len() <= bytes.len());
        }
    }
}
