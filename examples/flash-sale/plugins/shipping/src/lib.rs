//! Dispatches what is paid.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure};

#[derive(Deserialize)]
struct Processed {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Dispatched {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    parcel: String,
}

tidegate_plugin::handler!(handle);

/// Dispatches one order.
pub fn handle(event: Event) -> Result<(), Failure> {
    let processed: Processed = event.json()?;
    let dispatched = Dispatched {
        // A pure function of the order: if the attempt runs again, it is the same parcel.
        parcel: format!("p-{}", processed.order),
        order: processed.order,
        customer: processed.customer,
        sku: processed.sku,
        seq: processed.seq,
    };
    Draft::new("com.example.shipment.dispatched")
        .subject(&dispatched.order)
        .extension("partitionkey", &dispatched.sku)
        .json(&dispatched)?
        .emit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    #[test]
    fn paid_order_is_dispatched() {
        let event = testing::event(
            "com.example.payment.processed",
            r#"{"order":"o-1","customer":"c-1","sku":"sku-1","seq":4,"amount_cents":800}"#,
        );
        handle(event).unwrap();

        let dispatched: Dispatched = testing::emitted()[0].read_json().unwrap();
        assert_eq!((dispatched.parcel.as_str(), dispatched.seq), ("p-o-1", 4));
    }
}
