//! Reserves stock for orders, so that no sku ever goes below zero.
//!
//! What is left of a sku is state. Orders of one sku come one at a time and in order (`key = "partitionkey"`, which is the sku), so
//! reading and writing it needs no lock.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure, config, state};

#[derive(Deserialize)]
struct Order {
    order: String,
    customer: String,
    sku: String,
    /// Counts the orders of a sku.
    seq: u64,
    quantity: u32,
    price_cents: u64,
    coupon: Option<String>,
    card: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Reserved {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    quantity: u32,
    left: u32,
    amount_cents: u64,
    card: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Rejected {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    quantity: u32,
    left: u32,
    reason: String,
}

tidegate_plugin::handler!(handle);

/// Reserves or rejects an order.
pub fn handle(event: Event) -> Result<(), Failure> {
    let order: Order = event.json()?;
    if order.quantity == 0 {
        return Err(Failure::permanent(format!("order {} is for nothing", order.order)));
    }
    let amount_cents = amount_cents(&order);
    let stock = state::bucket("stock")?;
    let left = match stock.json(&order.sku)? {
        Some(left) => left,
        None => initial_stock()?,
    };
    match left.checked_sub(order.quantity) {
        Some(left) => {
            stock.set_json(&order.sku, &left)?;
            reserve(order, left, amount_cents)
        }
        None => reject(order, left),
    }
}

/// What a sku begins with: a value of the consumer's `grants.config`.
fn initial_stock() -> Result<u32, Failure> {
    let text = config::get("initial_stock")?
        .ok_or_else(|| Failure::transient("config has no initial_stock: add it to grants.config"))?;
    text.parse()
        .map_err(|_| Failure::transient(format!("initial_stock is no whole number: {text}")))
}

fn amount_cents(order: &Order) -> u64 {
    let full = order.price_cents * u64::from(order.quantity);
    match &order.coupon {
        Some(coupon) => full - full * discount_percent(coupon) / 100,
        None => full,
    }
}

/// By the first letter of a coupon.
///
/// This is the bug of the sale: an empty coupon has no first letter, and the plugin panics. The host parks such orders among the
/// dead letters, with this function's name in the backtrace, and goes on.
#[inline(never)]
fn discount_percent(coupon: &str) -> u64 {
    match coupon.as_bytes()[0] {
        b'V' => 20,
        b'S' => 10,
        _ => 0,
    }
}

fn reserve(order: Order, left: u32, amount_cents: u64) -> Result<(), Failure> {
    let reserved = Reserved {
        order: order.order,
        customer: order.customer,
        sku: order.sku,
        seq: order.seq,
        quantity: order.quantity,
        left,
        amount_cents,
        card: order.card,
    };
    Draft::new("com.example.stock.reserved")
        .subject(&reserved.order)
        .extension("partitionkey", &reserved.sku)
        .json(&reserved)?
        .emit()?;
    Ok(())
}

fn reject(order: Order, left: u32) -> Result<(), Failure> {
    let rejected = Rejected {
        order: order.order,
        customer: order.customer,
        sku: order.sku,
        seq: order.seq,
        quantity: order.quantity,
        left,
        reason: "sold out".into(),
    };
    Draft::new("com.example.stock.rejected")
        .subject(&rejected.order)
        .extension("partitionkey", &rejected.sku)
        .json(&rejected)?
        .emit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    fn order(seq: u64, quantity: u32, coupon: &str) -> Event {
        testing::event(
            "com.example.order.placed",
            format!(
                r#"{{"order":"o-{seq}","customer":"c-1","sku":"sku-1","seq":{seq},"quantity":{quantity},"price_cents":500,{coupon}"card":"tok_visa"}}"#
            ),
        )
    }

    fn shop(initial_stock: &str) {
        testing::reset();
        testing::set_config("initial_stock", initial_stock);
    }

    #[test]
    fn stock_is_reserved_until_it_is_sold_out() {
        shop("5");
        for (seq, quantity) in [(1, 3), (2, 3), (3, 2), (4, 1)] {
            testing::deliver(handle, order(seq, quantity, "")).unwrap();
        }

        let emitted = testing::emitted();
        let kinds: Vec<&str> = emitted.iter().map(|draft| &draft.kind[18..]).collect();
        assert_eq!(kinds, ["reserved", "rejected", "reserved", "rejected"]);
        assert_eq!(testing::state("stock")["sku-1"], b"0");
        let rejected: Rejected = emitted[1].read_json().unwrap();
        assert_eq!((rejected.left, rejected.seq), (2, 2));
        assert!(emitted.iter().all(|draft| draft.extensions[0].value == "sku-1"));
    }

    #[test]
    fn coupon_lowers_the_amount() {
        shop("5");
        handle(order(1, 2, r#""coupon":"VIP","#)).unwrap();

        let reserved: Reserved = testing::emitted()[0].read_json().unwrap();
        assert_eq!((reserved.amount_cents, reserved.left), (800, 3));
    }

    #[test]
    fn order_of_nothing_is_refused_for_good() {
        shop("5");
        let failure = handle(order(1, 0, "")).unwrap_err();

        assert_eq!(failure, Failure::permanent("order o-1 is for nothing"));
        assert!(testing::emitted().is_empty() && testing::state("stock").is_empty());
    }

    #[test]
    fn missing_config_is_not_the_orders_fault() {
        testing::reset();
        assert!(matches!(handle(order(1, 1, "")), Err(Failure::Transient(_))));
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn empty_coupon_is_the_bug_of_the_sale() {
        shop("5");
        let _ = handle(order(1, 1, r#""coupon":"","#));
    }
}
