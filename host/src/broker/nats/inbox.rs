//! Where deliveries arrive: one inbox, what was asked for on it, and the numbers that a delivery comes with.

use async_nats::{Subject, Subscriber};
use tokio::time::Instant;

use super::asked::Asked;
use crate::broker::Room;

/// One inbox, with what was asked for on it.
pub(super) struct Inbox {
    /// Each request has a subject of its own below this one; the server's words about a request come on it.
    pub(super) subject: String,
    pub(super) subscriber: Subscriber,
    /// Where to ask.
    pub(super) next_subject: Subject,
    /// The stream's name on the server.
    pub(super) stream: String,
    /// `STREAM.CONSUMER`: what the server's refusals name.
    pub(super) named: String,
    /// The connection's life in which it was made.
    pub(super) life: u64,
    /// Asked for and not arrived.
    pub(super) asked: Asked,
    /// The consumer's number for the next delivery.
    pub(super) next: u64,
    /// Whether a request ended because the next message is larger than what it had left: once no other is open, that message is
    /// asked for alone.
    pub(super) is_next_large: bool,
    /// When the server last said anything here, or was asked.
    pub(super) heard: Instant,
    /// Whether it said that it has nothing more, since the caller was told so last.
    pub(super) is_quiet: bool,
}

impl Inbox {
    /// Whether the server said that it has nothing more; says so once.
    pub(super) fn was_quiet(&mut self) -> bool {
        std::mem::take(&mut self.is_quiet)
    }

    /// What to ask for next, and the number of that request.
    pub(super) fn decide(&self, room: Room) -> Option<(u64, Room)> {
        if !self.is_next_large {
            return self.asked.more(room);
        }
        // An open request either takes the large message or ends like the one before it.
        self.asked.alone(room)
    }

    /// The number of the request that a word of the server is about.
    pub(super) fn request_of(&self, subject: &str) -> Option<u64> {
        let number = subject.strip_prefix(self.subject.as_str())?.strip_prefix('.')?;
        number.parse().ok()
    }

    /// Whether a refusal of the server is about this inbox or what it reads.
    pub(super) fn is_named_in(&self, refusal: &str) -> bool {
        refusal.contains(&self.named) || refusal.contains(&self.subject)
    }
}

/// The numbers in a delivery's reply subject.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The message's position in its stream.
    pub(super) stream: u64,
    /// Counts the consumer's deliveries.
    pub(super) delivery: u64,
}

impl Numbers {
    /// Reads `$JS.ACK.STREAM.CONSUMER.TIMES.POSITION.DELIVERY.TIME.PENDING`, or the newer form with domain and account before the
    /// stream and perhaps a token at the end (ADR-15).
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let is_newer = tokens.clone().count() >= 9;
        let before = if is_newer { 5 } else { 3 };
        let mut number = |skip| tokens.nth(skip).and_then(|token| token.parse().ok());
        Some(Self {
            stream: number(before)?,
            delivery: number(0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_both_forms() {
        let numbers = Some(Numbers {
            stream: 42,
            delivery: 7,
        });
        for reply in [
            "$JS.ACK.ORDERS.tidegate-a.1.42.7.1700000000000000000.3",
            "$JS.ACK.hub.ACCHASH.ORDERS.tidegate-a.1.42.7.1700000000000000000.3",
            "$JS.ACK.hub.ACCHASH.ORDERS.tidegate-a.1.42.7.1700000000000000000.3.token",
        ] {
            assert_eq!(Numbers::parse(reply), numbers, "{reply}");
        }
        for reply in ["", "$JS.ACK.", "_INBOX.a.b", "$JS.ACK.S.C.1.x.7.1.3"] {
            assert_eq!(Numbers::parse(reply), None, "{reply}");
        }
    }
}
