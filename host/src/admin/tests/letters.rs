//! Dead letters: listed, shown, redriven, purged.

use super::fakes::letter;
use super::*;
use crate::ledger::DeadLetter;
use crate::outcome::Reason;

fn ids(page: &Value) -> Vec<&str> {
    let letters = page["dead_letters"].as_array().unwrap();
    letters
        .iter()
        .map(|letter| &letter["id"].as_str().unwrap()[..2])
        .collect()
}

/// 1 to 3 of `inventory` for `trap`, 4 of `shipping` for `permanent`.
fn four() -> Vec<DeadLetter> {
    let mut letters: Vec<_> = (1..=4).map(letter).collect();
    letters[3].consumer = Name::new("shipping").unwrap();
    letters[3].reason = Reason::Permanent;
    letters
}

#[tokio::test]
async fn letters_are_listed_by_filter_and_page() {
    let host = Running::start().await;
    host.letters.add(four());
    let (status, page) = host.get("/api/v1/dead-letters").await;
    assert_eq!((status, ids(&page)), (200, vec!["01", "02", "03", "04"]));
    assert!(page.get("next").is_none());
    let (_, page) = host
        .get("/api/v1/dead-letters?consumer=inventory&reason=trap&limit=2")
        .await;
    assert_eq!(ids(&page), ["01", "02"]);
    let next = page["next"].as_u64().unwrap();
    let (_, page) = host
        .get(&format!("/api/v1/dead-letters?consumer=inventory&limit=2&after={next}"))
        .await;
    assert_eq!(ids(&page), ["03"]);
    let (_, page) = host.get("/api/v1/dead-letters?reason=permanent").await;
    assert_eq!(ids(&page), ["04"]);
}

#[tokio::test]
async fn a_list_that_makes_no_sense_is_refused() {
    let host = Running::start().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "reason=bored",
        "consumer=A",
        "after=x",
        "consumr=a",
    ] {
        let (status, body) = host.get(&format!("/api/v1/dead-letters?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body["message"].is_string(), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_letter_is_shown_whole() {
    let host = Running::start().await;
    host.letters.add([letter(1)]);
    let (status, shown) = host.get(&format!("/api/v1/dead-letters/{}", letter(1).id)).await;
    assert_eq!(status, 200);
    assert_eq!(shown["reason"], "trap");
    assert_eq!(shown["key"], "customer-7");
    assert_eq!(shown["last_at"], "2026-09-21T14:13:21.250Z");
    assert_eq!(shown["attributes"]["tenant"], "blue");
    assert_eq!(shown["attributes"]["subject"], "customer-7");
    assert_eq!(shown["payload"]["text"], "{\"item\":\"kettle\",\"quantity\":2}");
    assert_eq!(shown["payload"]["base64"], "eyJpdGVtIjoia2V0dGxlIiwicXVhbnRpdHkiOjJ9");
    let raw = shown["headers"].as_array().unwrap().last().unwrap();
    assert_eq!(*raw, json!({ "name": "X-Raw", "text": null, "base64": "/wA=" }));
    let attempt = &shown["attempts"][1];
    assert_eq!(attempt["at"], "2026-09-21T14:13:22.000Z");
    assert_eq!(
        (&attempt["duration_ms"], &attempt["memory_bytes"]),
        (&json!(1.234), &json!(1_114_112))
    );
    assert_eq!(attempt["class"], "trap");
    assert_eq!(attempt["backtrace"], json!(["inventory::reserve", "handle"]));
}

#[tokio::test]
async fn a_letter_of_a_message_that_is_no_event_is_shown_with_what_is_known() {
    let host = Running::start().await;
    let mut undecodable = letter(1);
    undecodable.message.headers = crate::event::Headers::default();
    undecodable.message.payload = bytes::Bytes::from_static(&[0xff]);
    (undecodable.event, undecodable.kind, undecodable.reason) = (None, None, Reason::Undecodable);
    host.letters.add([undecodable]);
    let (status, shown) = host.get(&format!("/api/v1/dead-letters/{}", letter(1).id)).await;
    assert_eq!((status, &shown["attributes"]), (200, &json!({})));
    assert_eq!(shown["payload"], json!({ "text": null, "base64": "/w==" }));
}

#[tokio::test]
async fn a_letter_that_is_not_there_is_told_from_an_id_that_is_none() {
    let host = Running::start().await;
    let (status, body) = host.get(&format!("/api/v1/dead-letters/{}", letter(1).id)).await;
    assert_eq!((status, &body["error"]), (404, &json!("no-dead-letter")));
    let (status, body) = host.get("/api/v1/dead-letters/1234").await;
    assert_eq!((status, &body["error"]), (400, &json!("admin-invalid")));
}

#[tokio::test]
async fn a_selection_is_whole_and_said_in_one_way() {
    let host = Running::start().await;
    host.letters.add(four());
    let id = letter(1).id.to_string();
    let refused = [
        json!({}),
        json!({ "dry_run": true }),
        json!({ "ids": [] }),
        json!({ "all": false }),
        json!({ "ids": [id], "all": true }),
        json!({ "ids": [id], "reason": "trap" }),
        json!({ "all": true, "consumer": "inventory" }),
        json!({ "ids": ["1"] }),
        json!({ "reason": "bored" }),
        json!({ "consumer": "Inventory" }),
        json!({ "consumr": "inventory", "all": true }),
        json!([]),
    ];
    for path in ["/api/v1/dead-letters/redrive", "/api/v1/dead-letters/purge"] {
        for body in &refused {
            let (status, answer) = host.post(path, body).await;
            assert_eq!(status, 400, "{body}: {answer}");
        }
    }
    assert_eq!(host.letters.all(), four());
}

#[tokio::test]
async fn redriven_are_those_selected_and_their_consumer_looks() {
    let host = Running::start().await;
    host.letters.add(four());
    host.wait_for("/readyz", 200).await;
    let looked = host.ledger.looked();
    let ids = [
        letter(2).id.to_string(),
        letter(2).id.to_string(),
        letter(9).id.to_string(),
    ];
    let (status, done) = host.post("/api/v1/dead-letters/redrive", &json!({ "ids": ids })).await;
    assert_eq!(
        (status, &done["count"], &done["dry_run"]),
        (200, &json!(1), &json!(false))
    );
    let only = json!({ "id": ids[0], "consumer": "inventory", "key": "customer-7", "applied_meanwhile": 3 });
    assert_eq!(done["letters"], json!([only]));
    let redriving: Vec<_> = host.letters.all().iter().map(|letter| letter.redriving).collect();
    assert_eq!(redriving, [false, true, false, false]);
    for _ in 0..500 {
        if host.ledger.looked() > looked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the consumer did not look at its parking");
}

#[tokio::test]
async fn a_dry_run_counts_and_touches_nothing() {
    let host = Running::start().await;
    host.letters.add(four());
    for (selection, count) in [
        (json!({ "all": true, "dry_run": true }), 4),
        (json!({ "consumer": "inventory", "dry_run": true }), 3),
        (json!({ "consumer": "nobody", "dry_run": true }), 0),
    ] {
        for path in ["/api/v1/dead-letters/redrive", "/api/v1/dead-letters/purge"] {
            let (status, done) = host.post(path, &selection).await;
            assert_eq!((status, &done["count"]), (200, &json!(count)), "{selection}");
            assert_eq!(done["dry_run"], true);
        }
    }
    assert_eq!(host.letters.all(), four());
}

#[tokio::test]
async fn purged_are_those_that_match() {
    let host = Running::start().await;
    host.letters.add(four());
    let (status, done) = host
        .post("/api/v1/dead-letters/purge", &json!({ "reason": "trap" }))
        .await;
    assert_eq!((status, &done["count"]), (200, &json!(3)));
    assert_eq!(host.letters.all(), four()[3..]);
}

/// More than one page, and more than an answer names.
#[tokio::test]
async fn many_are_acted_on_wholly_and_named_in_part() {
    let host = Running::start().await;
    let many = (0..1_050_u16).map(|number| {
        let mut letter = letter(1);
        letter.id.0[..2].copy_from_slice(&number.to_be_bytes());
        letter
    });
    host.letters.add(many);
    let (_, page) = host.get("/api/v1/dead-letters?limit=1000").await;
    assert_eq!(page["dead_letters"].as_array().unwrap().len(), 1_000);
    let (_, done) = host.post("/api/v1/dead-letters/redrive", &json!({ "all": true })).await;
    assert_eq!(done["count"], 1_050);
    assert_eq!(done["letters"].as_array().unwrap().len(), 1_000);
    assert!(host.letters.all().iter().all(|letter| letter.redriving));
    let (_, done) = host.post("/api/v1/dead-letters/purge", &json!({ "all": true })).await;
    assert_eq!(done["count"], 1_050);
    assert!(host.letters.all().is_empty());
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_is_503() {
    let host = Running::start().await;
    host.letters.break_down();
    let one = format!("/api/v1/dead-letters/{}", letter(1).id);
    for path in ["/api/v1/dead-letters", &one] {
        let (status, body) = host.get(path).await;
        assert_eq!((status, &body["error"]), (503, &json!("ledger-unavailable")));
    }
    let (status, body) = host.post("/api/v1/dead-letters/purge", &json!({ "all": true })).await;
    assert_eq!(status, 503);
    assert!(body["message"].as_str().unwrap().contains("the disk is full"));
}
