//! Payloads, out of the client's read buffer.

use bytes::Bytes;

/// The client reads into buffers of 64 KiB, and larger ones only for messages that are larger. A payload is a part of its buffer and keeps
/// the whole of it: one small event that waits held 64 KiB, which no budget knew of.
const COPIED_MAX: usize = 64 << 10;

/// A payload that keeps no more memory than about its own size.
pub(super) fn own(payload: Bytes) -> Bytes {
    match payload.len() {
        ..=COPIED_MAX => Bytes::copy_from_slice(&payload),
        _ => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Was once held as it came.
    #[test]
    fn a_small_payload_does_not_keep_the_buffer_that_it_came_in() {
        let buffer = Bytes::from(vec![7; 64 << 10]);
        let payload = own(buffer.slice(100..300));
        assert_eq!(payload[..], [7; 200]);
        assert!(buffer.is_unique());
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let buffer = Bytes::from(vec![7; 1 << 20]);
        assert_eq!(own(buffer.clone()).as_ptr(), buffer.as_ptr());
    }
}
