//! A source never waits while its stream has messages and its reader has room.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use tidegate::broker::suite::{Host, Stand};
use tidegate::broker::{Delivery, Outgoing, Room, Settlement, Subscription};
use tidegate::event::{Headers, Message};
use tidegate::plan;

/// A source that has forgotten to ask would wait for seven seconds.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The most that is held.
const WHOLE: Room = Room {
    count: 1_024,
    bytes: 4 << 20,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_sizes_are_drained_without_a_wait_whatever_the_room() {
    let (mut sizes, mut rooms) = (Lot(1), Lot(2));
    let size = move |_| match sizes.below(100) {
        0 => sizes.within(20_000, 200_000),
        1..10 => sizes.within(1_000, 20_000),
        _ => 100,
    };
    let room = move |_, free| Room {
        count: rooms.within(1, free),
        bytes: match rooms.below(3) {
            0 => rooms.within(1, 2_000),
            1 => rooms.within(1, 300_000),
            _ => WHOLE.bytes,
        },
    };
    drain(20_000, size, room).await;
}

/// The server ends such a request without a word. What was still missing of its count was once believed to be on its way, for
/// ever, and so there was less and less that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_end_with_their_last_byte_are_renewed() {
    // About 200 bytes a message on the wire: of every 200 rooms, one or more are filled to the last byte.
    let room = |call, free| Room {
        count: free,
        bytes: 400 + call % 400,
    };
    drain(5_000, |_| 100, room).await;
}

/// Publishes messages of these sizes and takes them with these rooms, by the number of the message or call; a room is also told
/// how many more may be held.
async fn drain(messages: usize, size: impl FnMut(usize) -> usize, mut room: impl FnMut(usize, usize) -> Room) {
    let stand = super::stand().await;
    let host = Host::start(&stand).await;
    publish(&host, &stand.subject(), messages, size).await;
    let subscription = Subscription {
        consumer: plan::Name::new("reader").unwrap(),
        stream: stand.stream(),
        room: WHOLE,
    };
    let mut reader = host.broker.subscribe(subscription).await.unwrap();

    let mut held: VecDeque<Delivery> = VecDeque::new();
    let mut lot = Lot(3);
    let (mut taken, mut calls) = (0, 0);
    while taken < messages {
        let room = room(calls, WHOLE.count - held.len());
        calls += 1;
        let next = timeout(WAIT_MAX, reader.source.next(room)).await;
        let batch = next.unwrap_or_else(|_| panic!("waited in vain after {taken} of {messages}, with {room:?}"));
        for delivery in batch.unwrap() {
            assert_eq!(
                delivery.message.payload.first_chunk(),
                Some(&(taken as u64).to_be_bytes()),
                "out of order"
            );
            taken += 1;
            held.push_back(delivery);
        }
        let most = lot.below(WHOLE.count);
        if held.len() > most {
            let settled = held.drain(..held.len() - most / 2);
            let settled = settled.map(|delivery| (delivery.receipt, Settlement::Done)).collect();
            reader.settle.settle(settled).await.unwrap();
        }
    }
}

async fn publish(host: &Host<'_>, subject: &str, messages: usize, mut size: impl FnMut(usize) -> usize) {
    for start in (0..messages).step_by(250) {
        let batch = (start..start + 250).map(|number| {
            let mut payload = vec![b'x'; size(number)];
            payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
            Outgoing {
                id: number.to_string().into(),
                key: [].into(),
                message: Message {
                    subject: subject.to_owned(),
                    headers: Headers::default(),
                    payload: Bytes::from(payload),
                },
            }
        });
        for result in host.publisher.publish(batch.collect()).await {
            result.unwrap();
        }
    }
}

/// Numbers drawn from a seed (SplitMix64).
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn within(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }
}
