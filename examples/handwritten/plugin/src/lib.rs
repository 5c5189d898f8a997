//! Turns each order into an invoice: the work of `../peer`, as a plugin.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure};

#[derive(Deserialize)]
struct Order {
    number: u64,
    customer: String,
    quantity: u64,
    price_cents: u64,
}

#[derive(Serialize)]
struct Invoice<'a> {
    number: u64,
    customer: &'a str,
    total_cents: u64,
}

tidegate_plugin::handler!(handle);

/// Turns one order into one invoice.
pub fn handle(event: Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    let invoice = Invoice {
        number: order.number,
        customer: &order.customer,
        total_cents: order.quantity * order.price_cents,
    };
    Draft::new("com.example.invoice.issued")
        .subject(&order.customer)
        .extension("partitionkey", &order.customer)
        .json(&invoice)?
        .emit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    #[test]
    fn order_becomes_invoice() {
        let order = r#"{"number":7,"customer":"c-1","quantity":3,"price_cents":250,"note":""}"#;
        handle(testing::event("com.example.order.placed", order)).unwrap();

        let invoice: serde_json::Value = testing::emitted()[0].read_json().unwrap();
        assert_eq!(invoice["number"], 7);
        assert_eq!(invoice["total_cents"], 750);
    }
}
