//! A source never waits while its stream has messages and its reader has room.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use tidegate::broker::suite::{Host, Stand};
use tidegate::broker::{Delivery, Outgoing, Room, Settlement, Subscription};
use tidegate::event::{Headers, Message};
use tidegate::plan;

const MESSAGES: usize = 20_000;
/// A source that has forgotten to ask would wait for seven seconds.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The most that is held.
const WHOLE: Room = Room {
    count: 1_024,
    bytes: 4 << 20,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_sizes_are_drained_without_a_wait_whatever_the_room() {
    let stand = super::stand().await;
    let host = Host::start(&stand).await;
    publish(&host, &stand.subject()).await;
    let subscription = Subscription {
        consumer: plan::Name::new("reader").unwrap(),
        stream: stand.stream(),
        room: WHOLE,
    };
    let mut reader = host.broker.subscribe(subscription).await.unwrap();

    let mut lot = Lot(1);
    let mut held: VecDeque<Delivery> = VecDeque::new();
    let mut taken = 0;
    while taken < MESSAGES {
        let room = Room {
            count: lot.within(1, WHOLE.count - held.len()),
            // One in three is so small that it is used up to the last byte, or too small for one message.
            bytes: match lot.below(3) {
                0 => lot.within(1, 2_000),
                1 => lot.within(1, 300_000),
                _ => WHOLE.bytes,
            },
        };
        let next = timeout(WAIT_MAX, reader.source.next(room)).await;
        let batch = next.unwrap_or_else(|_| panic!("waited in vain after {taken} of {MESSAGES}, with {room:?}"));
        for delivery in batch.unwrap() {
            assert_eq!(
                delivery.message.payload.first_chunk(),
                Some(&(taken as u64).to_be_bytes())
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

async fn publish(host: &Host<'_>, subject: &str) {
    let mut lot = Lot(2);
    let mut number = 0_u64;
    while number < MESSAGES as u64 {
        let batch = (number..number + 250).map(|number| {
            let size = match lot.below(100) {
                0 => lot.within(20_000, 200_000),
                1..10 => lot.within(1_000, 20_000),
                _ => 100,
            };
            let mut payload = vec![b'x'; size];
            payload[..8].copy_from_slice(&number.to_be_bytes());
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
        number += 250;
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
