//! Tells customers that their parcel is on its way.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure, log};

#[derive(Deserialize)]
struct Dispatched {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    parcel: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Sent {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    text: String,
}

tidegate_plugin::handler!(handle);

/// Writes to one customer.
pub fn handle(event: Event) -> Result<(), Failure> {
    let dispatched: Dispatched = event.json()?;
    log::debug!("parcel {} is on its way to {}", dispatched.parcel, dispatched.customer);
    let sent = Sent {
        text: format!(
            "Your order {} is on its way: parcel {}.",
            dispatched.order, dispatched.parcel
        ),
        order: dispatched.order,
        customer: dispatched.customer,
        sku: dispatched.sku,
        seq: dispatched.seq,
    };
    Draft::new("com.example.notification.sent")
        .subject(&sent.order)
        .extension("partitionkey", &sent.sku)
        .json(&sent)?
        .emit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    #[test]
    fn customer_is_told_which_parcel() {
        let event = testing::event(
            "com.example.shipment.dispatched",
            r#"{"order":"o-1","customer":"c-1","sku":"sku-1","seq":4,"parcel":"p-o-1"}"#,
        );
        handle(event).unwrap();

        let sent: Sent = testing::emitted()[0].read_json().unwrap();
        assert_eq!(sent.text, "Your order o-1 is on its way: parcel p-o-1.");
        assert_eq!(testing::logged()[0].1, "parcel p-o-1 is on its way to c-1");
    }
}
