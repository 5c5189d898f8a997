//! Charges for reserved stock, at a bank that is not always there.
//!
//! The card's token says how the bank behaves, as the test tokens of real payment services do: `tok_flaky_2` fails twice and then
//! succeeds, `tok_stolen` is refused for good, any other is charged.

use serde::{Deserialize, Serialize};
use tidegate_plugin::{Draft, Event, Failure, context};

#[derive(Deserialize)]
struct Reserved {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    amount_cents: u64,
    card: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Processed {
    order: String,
    customer: String,
    sku: String,
    seq: u64,
    amount_cents: u64,
}

tidegate_plugin::handler!(handle);

/// Charges one order.
pub fn handle(event: Event) -> Result<(), Failure> {
    let reserved: Reserved = event.json()?;
    charge(&reserved.card)?;
    let processed = Processed {
        order: reserved.order,
        customer: reserved.customer,
        sku: reserved.sku,
        seq: reserved.seq,
        amount_cents: reserved.amount_cents,
    };
    Draft::new("com.example.payment.processed")
        .subject(&processed.order)
        .extension("partitionkey", &processed.sku)
        .json(&processed)?
        .emit()?;
    Ok(())
}

/// Asks the bank. A real one would be called over HTTP and given `context().idempotency_key`, so that it charges once.
fn charge(card: &str) -> Result<(), Failure> {
    if card == "tok_stolen" {
        return Err(Failure::permanent("card is reported stolen"));
    }
    let failures = card.strip_prefix("tok_flaky_").and_then(|n| n.parse().ok());
    let attempt = context().attempt;
    if attempt <= failures.unwrap_or(0) {
        return Err(Failure::transient(format!("bank did not answer attempt {attempt}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidegate_plugin::testing;

    use super::*;

    fn reserved(card: &str) -> Event {
        testing::reset();
        testing::event(
            "com.example.stock.reserved",
            format!(
                r#"{{"order":"o-1","customer":"c-1","sku":"sku-1","seq":1,"quantity":2,"left":3,"amount_cents":800,"card":"{card}"}}"#
            ),
        )
    }

    #[test]
    fn good_card_is_charged() {
        handle(reserved("tok_visa")).unwrap();

        let processed: Processed = testing::emitted()[0].read_json().unwrap();
        assert_eq!((processed.order.as_str(), processed.amount_cents), ("o-1", 800));
    }

    #[test]
    fn flaky_card_is_charged_when_the_bank_answers() {
        let event = reserved("tok_flaky_2");
        for attempt in 1..=2 {
            testing::set_context(|context| context.attempt = attempt);
            let failure = handle(event.clone()).unwrap_err();
            assert_eq!(
                failure,
                Failure::transient(format!("bank did not answer attempt {attempt}"))
            );
        }
        assert!(testing::emitted().is_empty());

        testing::set_context(|context| context.attempt = 3);
        handle(event).unwrap();
        assert_eq!(testing::emitted().len(), 1);
    }

    #[test]
    fn stolen_card_is_refused_for_good() {
        let failure = handle(reserved("tok_stolen")).unwrap_err();

        assert_eq!(failure, Failure::permanent("card is reported stolen"));
    }
}
