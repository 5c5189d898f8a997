//! What it costs to decode an event from a message and to encode it again.

mod meter;

use std::hint::black_box;

use bytes::Bytes;
use meter::Sample;
use tidegate::event::codec::{self, Binding};
use tidegate::event::{Headers, Message};

/// Events in a sample.
const EVENTS: u32 = 2_000_000;

fn main() {
    let message = message();
    // The second round is the one to read: the first warms up.
    for _ in 0..2 {
        let sample = Sample::start();
        for _ in 0..EVENTS {
            black_box(codec::decode(black_box(&message), Binding::Nats, None).is_ok());
        }
        println!("decode, binary mode, 256 bytes  {}", sample.end(EVENTS));
    }
}

/// An order as it comes from a JetStream stream: seven attributes in headers, 256 bytes of data.
fn message() -> Message {
    let mut headers = Headers::default();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "order-0000001234"),
        ("ce-source", "/shops/berlin"),
        ("ce-type", "shop.order.placed"),
        ("ce-time", "2026-11-24T09:00:00Z"),
        ("ce-partitionkey", "customer-17"),
        ("content-type", "application/json"),
    ] {
        headers.push(name, Bytes::from_static(value.as_bytes()));
    }
    Message {
        subject: "orders.berlin".to_owned(),
        headers,
        payload: Bytes::from(vec![b' '; 256]),
    }
}
