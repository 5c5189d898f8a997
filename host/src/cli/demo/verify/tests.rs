//! The checker is checked: a right run is clean, and each wrong one is caught by the count that is meant for it.

use super::*;
use crate::cli::demo::scenario::{Flag, Poison, Scenario};

/// A run of the sale as a correct host leaves it: made from the scenario's flags where the model goes by the data, and with its
/// own till.
struct Run {
    published: Vec<Content>,
    outputs: Vec<(&'static str, Event)>,
    dead: Vec<Dead>,
    sales: BTreeMap<String, i64>,
}

fn output(stream: &'static str, kind: &str, data: &serde_json::Value) -> (&'static str, Event) {
    let event = Event {
        id: format!("{kind}-{}", data["order"]),
        source: "tidegate".to_owned(),
        kind: kind.to_owned(),
        data: Some(data.to_string().into()),
        ..Event::default()
    };
    (stream, event)
}

impl Run {
    fn correct(events: u32) -> Self {
        let mut run = Self {
            published: Vec::new(),
            outputs: Vec::new(),
            dead: Vec::new(),
            sales: BTreeMap::new(),
        };
        let mut stock = HashMap::new();
        for published in Scenario::new(events, 11) {
            run.handle(&published.content, published.flag, &mut stock);
            run.published.push(published.content);
        }
        run
    }

    fn handle(&mut self, content: &Content, flag: Flag, stock: &mut HashMap<String, u64>) {
        let payload = match content {
            Content::Event(event) => event.data.clone().unwrap(),
            Content::Raw(message) => message.payload.clone(),
        };
        let (both, inventory) = (["inventory", "analytics"].as_slice(), ["inventory"].as_slice());
        match flag {
            Flag::Duplicate => return,
            Flag::Poison(Poison::NoEvent | Poison::NoId) => return self.bury(both, Reason::Undecodable, &payload),
            Flag::Poison(Poison::IdConflict) => return self.bury(both, Reason::IdConflict, &payload),
            Flag::Poison(Poison::BrokenJson) => {
                self.count("unreadable", 1);
                return self.bury(inventory, Reason::Permanent, &payload);
            }
            Flag::Poison(_) | Flag::Order | Flag::Flaky => {}
        }
        let data: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        self.count("orders", 1);
        self.count("units", data["quantity"].as_i64().unwrap());
        match flag {
            Flag::Poison(Poison::Nothing) => self.bury(inventory, Reason::Permanent, &payload),
            Flag::Poison(Poison::EmptyCoupon) => self.bury(inventory, Reason::Trap, &payload),
            _ => self.sell(flag, data, &payload, stock),
        }
    }

    fn sell(&mut self, flag: Flag, mut data: serde_json::Value, payload: &Bytes, stock: &mut HashMap<String, u64>) {
        let quantity = data["quantity"].as_u64().unwrap();
        let left = stock.entry(data["sku"].to_string()).or_insert(80);
        if quantity > *left {
            data["left"] = (*left).into();
            self.outputs.push(output("stock", "com.example.stock.rejected", &data));
            return;
        }
        *left -= quantity;
        let full = data["price_cents"].as_u64().unwrap() * quantity;
        data["left"] = (*left).into();
        data["amount_cents"] = match data["coupon"].as_str() {
            Some("VIP") => full - full / 5,
            Some("SALE") => full - full / 10,
            _ => full,
        }
        .into();
        self.outputs.push(output("stock", "com.example.stock.reserved", &data));
        match flag {
            Flag::Poison(Poison::StolenCard) => return self.bury(&["payment"], Reason::Permanent, payload),
            Flag::Poison(Poison::DeadBank) => return self.bury(&["payment"], Reason::AttemptsExhausted, payload),
            _ => {}
        }
        data.as_object_mut()
            .unwrap()
            .retain(|key, _| !["left", "quantity"].contains(&key.as_str()));
        self.outputs
            .push(output("payments", "com.example.payment.processed", &data));
        data.as_object_mut().unwrap().remove("amount_cents");
        data["parcel"] = format!("p-{}", data["order"].as_str().unwrap()).into();
        self.outputs
            .push(output("shipments", "com.example.shipment.dispatched", &data));
        data.as_object_mut().unwrap().remove("parcel");
        self.outputs
            .push(output("notifications", "com.example.notification.sent", &data));
    }

    fn bury(&mut self, consumers: &[&str], reason: Reason, payload: &Bytes) {
        self.dead.extend(consumers.iter().map(|consumer| Dead {
            consumer: (*consumer).to_owned(),
            reason,
            payload: payload.clone(),
        }));
    }

    fn count(&mut self, name: &str, by: i64) {
        *self.sales.entry(name.to_owned()).or_default() += by;
    }

    /// The place of the first output of this kind after `from`.
    fn find(&self, from: usize, kind: &str) -> usize {
        from + self.outputs[from..]
            .iter()
            .position(|(_, event)| event.kind.ends_with(kind))
            .unwrap()
    }

    fn change(&mut self, at: usize, field: &str, value: serde_json::Value) {
        let event = &mut self.outputs[at].1;
        let mut data: serde_json::Value = serde_json::from_slice(event.data.as_ref().unwrap()).unwrap();
        data[field] = value;
        event.data = Some(data.to_string().into());
    }

    fn check(&self) -> Verdict {
        let mut checker = Checker::new(Rules::default());
        self.published.iter().for_each(|content| checker.published(content));
        self.outputs
            .iter()
            .for_each(|(stream, event)| checker.output(stream, event));
        self.dead.iter().for_each(|dead| checker.dead(dead));
        checker.sales(&self.sales);
        checker.finish()
    }
}

/// Breaks a correct run and gives lost, applied twice, out of order and unexpected.
fn broken(breakage: impl FnOnce(&mut Run)) -> [u64; 4] {
    let mut run = Run::correct(3_000);
    breakage(&mut run);
    let verdict = run.check();
    assert!(!verdict.is_clean());
    assert!(!verdict.notes.is_empty());
    [
        verdict.lost,
        verdict.applied_twice,
        verdict.out_of_order,
        verdict.unexpected,
    ]
}

#[test]
fn correct_run_is_clean() {
    let run = Run::correct(3_000);
    let verdict = run.check();

    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.events, 3_000);
    assert_eq!(verdict.outputs, run.outputs.len() as u64);
    assert_eq!(verdict.dead.values().sum::<u64>(), run.dead.len() as u64);
    for reason in [
        Reason::Undecodable,
        Reason::IdConflict,
        Reason::Permanent,
        Reason::Trap,
        Reason::AttemptsExhausted,
    ] {
        assert!(verdict.dead[&reason] > 0, "no {reason}");
    }
    assert!(
        run.outputs.iter().any(|(_, event)| event.kind.ends_with("rejected")),
        "nothing is sold out"
    );
}

#[test]
fn missing_output_is_lost() {
    let lost = broken(|run| {
        run.outputs.remove(run.find(900, "notification.sent"));
    });
    assert_eq!(lost, [1, 0, 0, 0]);
}

#[test]
fn order_without_any_effect_is_lost_at_every_stage() {
    let lost = broken(|run| {
        let order = run.outputs[run.find(900, "sent")].1.id.clone();
        let order = order.rsplit_once('"').unwrap().0.rsplit_once('"').unwrap().1.to_owned();
        run.outputs.retain(|(_, event)| !event.id.contains(&order));
    });
    assert_eq!(lost, [4, 0, 0, 0]);
}

#[test]
fn output_is_caught_twice_under_the_same_id_and_under_another() {
    let again = |run: &mut Run, id: &str| {
        let at = run.find(900, "payment.processed");
        let mut copy = run.outputs[at].clone();
        copy.1.id.push_str(id);
        run.outputs.push(copy);
    };
    assert_eq!(broken(|run| again(run, "")), [0, 1, 0, 0]);
    assert_eq!(broken(|run| again(run, "-other")), [0, 1, 0, 0]);
}

#[test]
fn swapped_outputs_of_one_article_are_out_of_order() {
    let swapped = broken(|run| {
        let sku = |event: &Event| -> serde_json::Value {
            let data: serde_json::Value = serde_json::from_slice(event.data.as_ref().unwrap()).unwrap();
            data["sku"].clone()
        };
        let first = run.find(900, "dispatched");
        let article = sku(&run.outputs[first].1);
        let second = (first + 1..run.outputs.len())
            .find(|at| run.outputs[*at].0 == "shipments" && sku(&run.outputs[*at].1) == article)
            .unwrap();
        run.outputs.swap(first, second);
    });
    assert_eq!(swapped, [0, 0, 1, 0]);
}

#[test]
fn outputs_of_different_articles_have_no_order() {
    let mut run = Run::correct(3_000);
    let sku = |event: &Event| {
        String::from_utf8_lossy(event.data.as_ref().unwrap())
            .split("sku-")
            .nth(1)
            .unwrap()[..4]
            .to_owned()
    };
    run.outputs.sort_by_key(|(_, event)| sku(event));
    assert!(run.check().is_clean());
}

#[test]
fn dead_and_applied_is_caught() {
    let both = broken(|run| {
        let dead = run.dead.iter().find(|dead| dead.reason == Reason::Trap).unwrap();
        let data: serde_json::Value = serde_json::from_slice(&dead.payload).unwrap();
        run.outputs.push(output("stock", "com.example.stock.reserved", &data));
    });
    assert_eq!(both, [0, 0, 0, 1]);
}

#[test]
fn dead_payment_that_was_charged_all_the_same_is_caught() {
    let both = broken(|run| {
        let dead = run.dead.iter().find(|dead| dead.consumer == "payment").unwrap();
        let data: serde_json::Value = serde_json::from_slice(&dead.payload).unwrap();
        run.outputs
            .push(output("payments", "com.example.payment.processed", &data));
    });
    assert_eq!(both, [0, 0, 0, 1]);
}

#[test]
fn good_order_among_the_dead_letters_is_caught() {
    let buried = broken(|run| {
        let data = run.outputs[run.find(900, "reserved")].1.data.clone().unwrap();
        run.bury(&["payment"], Reason::AttemptsExhausted, &data);
    });
    assert_eq!(buried, [0, 0, 0, 1]);
}

#[test]
fn dead_letter_is_caught_missing_twice_or_for_another_reason() {
    let trap = |run: &Run| run.dead.iter().position(|dead| dead.reason == Reason::Trap).unwrap();

    assert_eq!(broken(|run| drop(run.dead.remove(trap(run)))), [1, 0, 0, 0]);
    assert_eq!(broken(|run| run.dead.push(run.dead[trap(run)].clone())), [0, 1, 0, 0]);
    let other = broken(|run| {
        let at = trap(run);
        run.dead[at].reason = Reason::TimeLimit;
    });
    assert_eq!(other, [1, 0, 0, 1]);
}

#[test]
fn stock_below_zero_is_caught() {
    let sold = broken(|run| {
        let at = run.find(0, "rejected");
        run.outputs[at].1.kind = "com.example.stock.reserved".to_owned();
    });
    assert_eq!(
        sold,
        [1, 0, 0, 1],
        "the rejection is missing, the reservation must not be"
    );
    let wrong = broken(|run| run.change(run.find(900, "reserved"), "left", 81.into()));
    assert_eq!(wrong, [0, 0, 0, 1]);
}

#[test]
fn event_on_the_wrong_stream_or_of_no_form_is_caught() {
    let strayed = broken(|run| {
        let at = run.find(900, "sent");
        run.outputs[at].0 = "stock";
    });
    assert_eq!(strayed, [1, 0, 0, 1]);
    let shapeless = broken(|run| {
        let at = run.find(900, "sent");
        run.outputs[at].1.data = None;
    });
    assert_eq!(shapeless, [1, 0, 0, 1]);
}

#[test]
fn counters_that_are_off_are_caught() {
    assert_eq!(broken(|run| run.count("units", -3)), [3, 0, 0, 0]);
    assert_eq!(broken(|run| run.count("orders", 2)), [0, 2, 0, 0]);
}

#[test]
fn rules_are_those_of_the_example_on_every_broker() {
    let consumers = |file: &str| -> toml::Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flash-sale/");
        let text = std::fs::read_to_string(format!("{folder}{file}")).unwrap();
        toml::from_str::<toml::Table>(&text).unwrap()["consumer"].clone()
    };
    let embedded = consumers("tidegate.toml");
    let rules = Rules::default();
    let stock = embedded["inventory"]["grants"]["config"]["initial_stock"].as_str();
    let attempts = embedded["payment"]["retry"]["attempts"].as_integer();

    assert_eq!(stock, Some(rules.initial_stock.to_string().as_str()));
    assert_eq!(attempts, Some(rules.payment_attempts.into()));
    assert_eq!(embedded, consumers("nats.toml"));
}
