//! What a source has asked the server for and not got yet. Pure: values in, decisions out.
//!
//! A delivery does not say which request it answers, but their sums are exact: the server counts a message as its client does
//! (subject, reply, headers, body). A request ends
//! - when its count has come. If it had bytes left, the server says so afterwards, with its number: `Batch Completed`.
//! - by a word with its number, which says what is left of it: timeouts, a message larger than its bytes.
//! - silently, whatever its count, when its bytes have come to exactly zero. Its count is then still in the sum, until the sum of
//!   bytes is used up or the last request that the server knows has ended: both say that none is open.
//!
//! A word about a request that is over already must change nothing: the next ones have begun to count.

use std::collections::BTreeSet;

use crate::broker::Room;

/// The requests that are open at most: while one runs out, the other is there.
const OPEN_MAX: usize = 2;
/// The most that one request asks for.
const BATCH_MAX: usize = 1_000;

/// The open requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The most that one request asks for: half of the subscription's room.
    half: Room,
    /// The number of the next request.
    next: u64,
    open: BTreeSet<u64>,
    /// Asked for by all of them, and not arrived.
    left: Room,
}

impl Asked {
    /// Nothing is asked for yet. `whole` is the most that is held at any time.
    pub(super) fn new(whole: Room) -> Self {
        Self {
            half: Room {
                count: whole.count.div_ceil(OPEN_MAX).clamp(1, BATCH_MAX),
                bytes: whole.bytes.div_ceil(OPEN_MAX).max(1),
            },
            next: 0,
            open: BTreeSet::new(),
            left: Room { count: 0, bytes: 0 },
        }
    }

    /// What to ask for and the request's number, if there is room for enough to be worth a request. With what was asked for
    /// already it stays within the room.
    pub(super) fn more(&self, room: Room) -> Option<(u64, Room)> {
        if self.open.is_empty() {
            // At least one byte: zero would mean that there is no limit.
            let bytes = room.bytes.max(1);
            return self.request(Room { bytes, ..room });
        }
        let free = Room {
            count: room.count.saturating_sub(self.left.count),
            bytes: room.bytes.saturating_sub(self.left.bytes),
        };
        // Little requests cost more than they bring while another is open.
        let is_worth_it = free.count >= room.count.min(self.half.count).div_ceil(2)
            && free.bytes >= room.bytes.min(self.half.bytes).div_ceil(4).max(1);
        (self.open.len() < OPEN_MAX && is_worth_it)
            .then(|| self.request(free))
            .flatten()
    }

    /// A request for one message of whatever size, once nothing else is open.
    pub(super) fn alone(&self, room: Room) -> Option<(u64, Room)> {
        let one = Room {
            count: room.count.min(1),
            bytes: usize::MAX,
        };
        (self.open.is_empty() && one.count == 1).then_some((self.next, one))
    }

    /// A request was sent.
    pub(super) fn sent(&mut self, request: u64, wanted: Room) {
        self.open.insert(request);
        self.next = request + 1;
        self.left.count += wanted.count;
        self.left.bytes = self.left.bytes.saturating_add(wanted.bytes);
    }

    /// A message of so many bytes arrived.
    pub(super) fn arrived(&mut self, bytes: usize) {
        self.take(Room { count: 1, bytes });
    }

    /// The server says that a request is over, and what did not come of it. Whether it was open.
    pub(super) fn ended(&mut self, request: Option<u64>, left: Room) -> bool {
        let was_open = request.is_some_and(|request| self.open.remove(&request));
        if was_open {
            self.take(left);
        }
        was_open
    }

    fn take(&mut self, what: Room) {
        self.left.count = self.left.count.saturating_sub(what.count);
        self.left.bytes = self.left.bytes.saturating_sub(what.bytes);
        if self.open.is_empty() || self.left.count == 0 || self.left.bytes == 0 {
            self.open.clear();
            self.left = Room { count: 0, bytes: 0 };
        }
    }

    fn request(&self, free: Room) -> Option<(u64, Room)> {
        let wanted = Room {
            count: free.count.min(self.half.count),
            bytes: free.bytes.min(self.half.bytes),
        };
        (wanted.count > 0 && wanted.bytes > 0).then_some((self.next, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(count: usize, bytes: usize) -> Room {
        Room { count, bytes }
    }

    /// Asks for whatever there is room for; gives the requests.
    fn ask(asked: &mut Asked, within: Room) -> Vec<Room> {
        let mut sent = Vec::new();
        while let Some((request, wanted)) = asked.more(within) {
            asked.sent(request, wanted);
            sent.push(wanted);
        }
        sent
    }

    #[test]
    fn two_requests_share_the_room() {
        let mut asked = Asked::new(room(10, 100));
        assert_eq!(ask(&mut asked, room(10, 100)), [room(5, 50), room(5, 50)]);
        assert_eq!(ask(&mut asked, room(10, 100)), []);
    }

    #[test]
    fn asking_stays_within_a_room_that_is_partly_used() {
        let mut asked = Asked::new(room(10, 100));
        assert_eq!(ask(&mut asked, room(7, 60)), [room(5, 50)]);
        assert_eq!(ask(&mut Asked::new(room(10, 100)), room(0, 100)), []);
        assert_eq!(ask(&mut Asked::new(room(10, 100)), room(1, 0)), [room(1, 1)]);
        assert_eq!(
            ask(&mut Asked::new(room(5_000, 100)), room(5_000, 100)),
            [room(1_000, 50), room(1_000, 50)]
        );
    }

    #[test]
    fn the_next_request_is_sent_before_the_last_is_used_up() {
        let mut asked = Asked::new(room(10, 1_000));
        ask(&mut asked, room(10, 1_000));
        for _ in 0..5 {
            asked.arrived(1);
        }
        // The server rotates among requests: only its word says that one of them is over.
        assert_eq!(ask(&mut asked, room(10, 1_000)), []);
        assert!(asked.ended(Some(0), room(0, 495)));
        assert_eq!(ask(&mut asked, room(10, 1_000)), [room(5, 500)]);
    }

    #[test]
    fn a_late_word_about_an_old_request_changes_nothing() {
        let mut asked = Asked::new(room(2, 100));
        assert_eq!(ask(&mut asked, room(1, 50)), [room(1, 50)]);
        asked.arrived(10);
        ask(&mut asked, room(2, 100));
        let before = asked.clone();
        // Was once counted against the new request, so that the source asked for too much or waited for nothing.
        assert!(!asked.ended(Some(0), room(0, 40)));
        assert!(!asked.ended(None, room(1, 40)));
        assert_eq!(asked, before);
    }

    #[test]
    fn a_request_whose_bytes_are_used_up_exactly_is_over_without_a_word() {
        let mut asked = Asked::new(room(20, 100));
        asked.sent(0, room(10, 50));
        asked.arrived(20);
        asked.arrived(30);
        assert_eq!(
            ask(&mut asked, room(20, 100)).len(),
            2,
            "a request is still believed open"
        );
    }

    #[test]
    fn one_that_ended_silently_is_forgotten_when_the_other_ends() {
        let mut asked = Asked::new(room(20, 100));
        asked.sent(0, room(10, 50));
        asked.sent(1, room(10, 50));
        // Request 0 is used up by this one; the server goes on with request 1.
        asked.arrived(50);
        assert!(asked.ended(Some(1), room(10, 50)));
        assert_eq!(
            ask(&mut asked, room(20, 100)).len(),
            2,
            "a request is still believed open"
        );
    }

    #[test]
    fn a_large_message_is_asked_for_alone() {
        let mut asked = Asked::new(room(20, 100));
        asked.sent(0, room(10, 50));
        assert_eq!(asked.alone(room(20, 100)), None);
        asked.ended(Some(0), room(10, 50));
        assert_eq!(asked.alone(room(0, 100)), None);
        let (request, one) = asked.alone(room(20, 100)).unwrap();
        asked.sent(request, one);
        asked.arrived(1_000);
        assert_eq!(ask(&mut asked, room(20, 100)).len(), 2);
    }
}
