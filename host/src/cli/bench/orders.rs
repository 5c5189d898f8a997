//! The orders that contenders work on, and the check of what they made of them. Shares no code with the contenders.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::broker::{Broker, Outgoing, Publisher, Room, Settlement, Subscription};
use crate::clock::Timestamp;
use crate::event::codec::{self, Binding};
use crate::event::{Event, Extension, Value};
use crate::plan::{Name, Stream};

/// Orders published in one batch at most, and bytes of their data: the broker is to confirm a batch within seconds.
const BATCH: u32 = 500;
const BATCH_BYTES: usize = 8 << 20;
/// What is read of a stream at once.
const ROOM: Room = Room {
    count: 5_000,
    bytes: 64 << 20,
};

/// What the orders are like. Each is known by its number, from 0 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orders {
    /// Customers, who order in turn: orders of one are in order.
    pub(super) customers: NonZeroU32,
    /// Bytes of an order's data; at least what its fields need, about 80.
    pub(super) data_bytes: usize,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            customers: NonZeroU32::MIN.saturating_add(999),
            data_bytes: 256,
        }
    }
}

#[derive(Deserialize)]
struct Invoice {
    number: u32,
    customer: String,
    total_cents: u64,
}

impl Orders {
    /// The message of one order.
    ///
    /// # Errors
    /// It does not fit the stream, which would be a fault of the benchmark.
    pub(super) fn order(self, number: u32, stream: &Stream) -> anyhow::Result<Outgoing> {
        let customer = self.customer(number);
        let data = |note: &str| {
            json!({
                "number": number, "customer": customer, "quantity": quantity(number), "price_cents": price(number), "note": note,
            })
            .to_string()
        };
        let note = " ".repeat(self.data_bytes.saturating_sub(data("").len()));
        let id = format!("order-{number:010}");
        let event = Event {
            id: id.clone(),
            source: "/shops/berlin".to_owned(),
            kind: "com.example.order.placed".to_owned(),
            subject: Some(customer.clone()),
            time: Some(Timestamp(1_795_510_800_000).to_string()),
            datacontenttype: Some("application/json".to_owned()),
            dataschema: None,
            extensions: vec![Extension {
                name: "partitionkey".to_owned(),
                value: Value::String(customer.clone()),
            }],
            data: Some(Bytes::from(data(&note))),
        };
        Ok(Outgoing {
            id: id.into(),
            key: Arc::from(customer.as_bytes()),
            message: codec::encode(&event, stream)?,
        })
    }

    /// Publishes orders 0 to `count`.
    ///
    /// # Errors
    /// The broker refuses one.
    pub(super) async fn fill(self, publisher: &dyn Publisher, stream: &Stream, count: u32) -> anyhow::Result<()> {
        let fit = u32::try_from(BATCH_BYTES / self.data_bytes.max(1)).unwrap_or(BATCH);
        let batch = fit.clamp(1, BATCH);
        for first in (0..count).step_by(batch as usize) {
            let numbers = first..count.min(first + batch);
            let batch = numbers
                .map(|number| self.order(number, stream))
                .collect::<anyhow::Result<_>>()?;
            for result in publisher.publish(batch).await {
                result?;
            }
        }
        Ok(())
    }

    /// Reads the invoices of orders 0 to `count`, and checks each: right, there once, and in the order that is promised.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) async fn check(
        self,
        broker: &dyn Broker,
        stream: &Arc<Stream>,
        count: u32,
        order: Order,
    ) -> anyhow::Result<()> {
        let mut subscribed = broker
            .subscribe(Subscription {
                consumer: Name::new("bench-check")?,
                stream: Arc::clone(stream),
                room: ROOM,
            })
            .await?;
        let mut checker = Checker::new(self, count, order);
        loop {
            let deliveries = subscribed.source.next(ROOM).await?;
            let mut receipts = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                let event = codec::decode(&delivery.message, Binding::of(&stream.broker.kind), None)?;
                checker.invoice(event.data.as_deref().unwrap_or_default())?;
                receipts.push((delivery.receipt, Settlement::Done));
            }
            // Nothing more: the contender was stopped before.
            if receipts.is_empty() || checker.seen == count {
                ensure!(checker.seen == count, "{count} orders became {} invoices", checker.seen);
                return Ok(());
            }
            subscribed.settle.settle(receipts).await?;
        }
    }

    /// Whether an order may be published while `oldest` and all after it may not have arrived yet: no one of its own customer is among
    /// them.
    pub(super) fn may_follow(self, number: u32, oldest: u32) -> bool {
        number < oldest || number - oldest < self.customers.get()
    }

    fn customer(self, number: u32) -> String {
        format!("c-{}", number % self.customers)
    }
}

/// What is promised of the invoices of one customer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// They come as the orders did.
    Kept,
    /// Nothing.
    Any,
}

/// What has been seen of the invoices.
pub(super) struct Checker {
    orders: Orders,
    order: Order,
    /// Orders that have their invoice.
    pub(super) seen: u32,
    /// By number, which of the orders have an invoice.
    invoiced: Vec<bool>,
    /// The last order of each customer.
    last: HashMap<String, u32>,
}

impl Checker {
    pub(super) fn new(orders: Orders, count: u32, order: Order) -> Self {
        Self {
            orders,
            order,
            seen: 0,
            invoiced: vec![false; count as usize],
            last: HashMap::new(),
        }
    }

    /// Checks one invoice; gives the number of its order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn invoice(&mut self, data: &[u8]) -> anyhow::Result<u32> {
        let invoice: Invoice = serde_json::from_slice(data).context("what was written is no invoice")?;
        let number = invoice.number;
        let is_right =
            invoice.customer == self.orders.customer(number) && invoice.total_cents == quantity(number) * price(number);
        ensure!(is_right, "the invoice of order {number} is wrong");
        let invoiced = self.invoiced.get_mut(number as usize);
        let invoiced = invoiced.with_context(|| format!("there is no order {number}"))?;
        ensure!(
            !std::mem::replace(invoiced, true),
            "the invoice of order {number} came twice"
        );
        self.seen += 1;
        let before = self.last.insert(invoice.customer, number);
        ensure!(
            self.order == Order::Any || before.is_none_or(|before| before < number),
            "the invoice of order {number} came too late"
        );
        Ok(number)
    }
}

fn quantity(number: u32) -> u64 {
    u64::from(number % 7 + 1)
}

fn price(number: u32) -> u64 {
    u64::from(number % 1_000 + 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{self, BrokerKind, ContentMode, Log, Place};

    const CUSTOMERS: u32 = 3;

    fn orders(customers: u32, data_bytes: usize) -> Orders {
        let customers = NonZeroU32::new(customers).unwrap();
        Orders { customers, data_bytes }
    }

    fn invoice(number: u32) -> Vec<u8> {
        let customer = orders(CUSTOMERS, 256).customer(number);
        let total = quantity(number) * price(number);
        json!({ "number": number, "customer": customer, "total_cents": total })
            .to_string()
            .into_bytes()
    }

    fn checker(order: Order) -> Checker {
        Checker::new(orders(CUSTOMERS, 256), 2 * CUSTOMERS, order)
    }

    fn stream() -> Stream {
        let broker = plan::Broker {
            name: Name::new("main").unwrap(),
            kind: BrokerKind::Embedded,
        };
        Stream {
            name: Name::new("orders").unwrap(),
            broker: Arc::new(broker),
            place: Place::Log(Log {
                age_max: None,
                bytes_max: 1 << 20,
            }),
            mode: ContentMode::Binary,
            mapping: None,
        }
    }

    #[test]
    fn an_order_is_as_large_as_was_asked() {
        for bytes in [100, 256, 1 << 20] {
            let order = orders(1_000_000, bytes).order(999_999, &stream()).unwrap();
            assert_eq!(order.message.payload.len(), bytes);
        }
    }

    #[test]
    fn customers_order_in_turn() {
        let key = |customers, number| orders(customers, 0).order(number, &stream()).unwrap().key;
        assert_eq!(key(1, 7), key(1, 8));
        assert_eq!(key(3, 1), key(3, 4));
        assert_ne!(key(3, 1), key(3, 2));
    }

    #[test]
    fn an_order_waits_for_its_customers_earlier_one() {
        let three = orders(3, 0);
        assert!(three.may_follow(5, u32::MAX));
        assert!(three.may_follow(5, 3));
        assert!(!three.may_follow(5, 2));
        assert!(!orders(1, 0).may_follow(5, 4));
    }

    #[test]
    fn what_is_right_is_let_through() {
        let mut checker = checker(Order::Kept);
        for number in [0, 1, CUSTOMERS] {
            checker.invoice(&invoice(number)).unwrap();
        }
        assert_eq!(checker.seen, 3);
    }

    #[test]
    fn an_invoice_that_comes_twice_is_found() {
        for order in [Order::Kept, Order::Any] {
            let mut checker = checker(order);
            checker.invoice(&invoice(0)).unwrap();
            checker.invoice(&invoice(CUSTOMERS)).unwrap();
            let error = checker.invoice(&invoice(0)).unwrap_err();
            assert_eq!(error.to_string(), "the invoice of order 0 came twice");
        }
    }

    #[test]
    fn a_customers_invoice_that_is_overtaken_is_found_where_order_is_promised() {
        let late = |order| {
            let mut checker = checker(order);
            checker.invoice(&invoice(CUSTOMERS)).unwrap();
            checker.invoice(&invoice(0)).map_err(|error| error.to_string())
        };
        assert_eq!(late(Order::Kept).unwrap_err(), "the invoice of order 0 came too late");
        late(Order::Any).unwrap();
    }

    #[test]
    fn a_wrong_sum_is_found() {
        let wrong = br#"{"number":1,"customer":"c-1","total_cents":1}"#;
        let error = checker(Order::Any).invoice(wrong).unwrap_err();
        assert_eq!(error.to_string(), "the invoice of order 1 is wrong");
    }
}
