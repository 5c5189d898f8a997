//! Turns each order into an invoice.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure};

#[derive(Deserialize)]
struct Order {
    id: String,
    quantity: u32,
    price_cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Invoice {
    order: String,
    total_cents: u64,
}

tidegate_plugin::handler!(handle);

/// Called once per event. What it emits is published if it returns `Ok`, and never otherwise.
pub fn handle(event: Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    if order.quantity == 0 {
        return Err(Failure::permanent("order of nothing"));
    }
    let invoice = Invoice {
        total_cents: order.price_cents * u64::from(order.quantity),
        order: order.id,
    };
    Draft::new("com.example.invoice.issued")
        .subject(&invoice.order)
        .json(&invoice)?
        .emit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    fn order(json: &str) -> Event {
        testing::event("com.example.order.placed", json)
    }

    #[test]
    fn order_becomes_invoice() {
        handle(order(r#"{"id":"o-1","quantity":3,"price_cents":250}"#)).unwrap();

        let emitted = testing::emitted();
        let invoice: Invoice = emitted[0].read_json().unwrap();
        assert_eq!(emitted.len(), 1);
        assert_eq!(emitted[0].subject.as_deref(), Some("o-1"));
        assert_eq!(invoice.total_cents, 750);
    }

    #[test]
    fn order_of_nothing_is_refused_for_good() {
        let failure = handle(order(r#"{"id":"o-2","quantity":0,"price_cents":250}"#)).unwrap_err();

        assert_eq!(failure, Failure::permanent("order of nothing"));
        assert!(testing::emitted().is_empty());
    }
}
