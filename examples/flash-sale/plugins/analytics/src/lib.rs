//! Counts what is ordered, over all keys at once.
//!
//! Events of different keys run in parallel and all add to the same counters: `increment` merges, so none of them waits for
//! another or runs twice.

use serde::Deserialize;
use tidegate_plugin::{Event, Failure, state};

#[derive(Deserialize)]
struct Order {
    quantity: u32,
}

tidegate_plugin::handler!(handle);

/// Counts one order. What it can't read is counted, not refused: someone else's mistake is not worth a dead letter here.
pub fn handle(event: Event) -> Result<(), Failure> {
    let sales = state::bucket("sales")?;
    match event.json::<Order>() {
        Ok(order) => {
            sales.increment("orders", 1)?;
            sales.increment("units", i64::from(order.quantity))?;
        }
        Err(_) => {
            sales.increment("unreadable", 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    #[test]
    fn orders_and_units_are_counted() {
        testing::reset();
        for data in [r#"{"quantity":3}"#, r#"{"quantity":2}"#, r#"{"quantity":"#] {
            handle(testing::event("com.example.order.placed", data)).unwrap();
        }

        let sales = testing::state("sales");
        assert_eq!(sales["orders"], b"2");
        assert_eq!(sales["units"], b"5");
        assert_eq!(sales["unreadable"], b"1");
    }
}
