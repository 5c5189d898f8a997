//! `tail`.

use reqwest::Response;

use super::*;

fn happening(consumer: &str, outcome: &'static str, id: &str) -> Happening {
    Happening {
        at: Timestamp(1_790_000_000_000),
        consumer: Name::new(consumer).unwrap(),
        outcome,
        event_id: id.to_owned(),
        event_type: "a.b".to_owned(),
        key: "k".to_owned(),
        attempt: 1,
        emitted: vec!["e-0".to_owned()],
        error: None,
    }
}

async fn watch(host: &Running, query: &str) -> Response {
    let response = host
        .client
        .get(host.url(&format!("/api/v1/tail{query}")))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    response
}

/// The next lines, as many as are wanted.
async fn lines(response: &mut Response, count: usize) -> Vec<Value> {
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        let chunk = tokio::time::timeout(Duration::from_secs(10), response.chunk()).await;
        let chunk = chunk.expect("a line in time").unwrap().expect("no end");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn happenings_are_lines_from_the_moment_of_the_answer() {
    let host = Running::start().await;
    let mut response = watch(&host, "").await;
    host.feed.send(happening("inventory", "committed", "1")).unwrap();
    host.feed.send(happening("shipping", "retry", "2")).unwrap();
    let lines = lines(&mut response, 2).await;
    assert_eq!(
        lines[0],
        json!({
            "at": "2026-09-21T14:13:20.000Z", "consumer": "inventory", "outcome": "committed", "event_id": "1",
            "event_type": "a.b", "key": "k", "attempt": 1, "emitted": ["e-0"],
        })
    );
    assert_eq!(lines[1]["event_id"], "2");
}

#[tokio::test]
async fn happenings_are_filtered() {
    let host = Running::start().await;
    let mut response = watch(&host, "?consumer=inventory&outcome=dead").await;
    for (consumer, outcome, id) in [
        ("inventory", "committed", "1"),
        ("shipping", "dead", "2"),
        ("inventory", "dead", "3"),
    ] {
        host.feed.send(happening(consumer, outcome, id)).unwrap();
    }
    assert_eq!(lines(&mut response, 1).await[0]["event_id"], "3");
    for query in ["outcome=eaten", "consumr=a"] {
        assert_eq!(host.get(&format!("/api/v1/tail?{query}")).await.0, 400, "{query}");
    }
}

/// The feed holds 8 here. The runtime has one thread, so nothing is read before all are sent.
#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_how_much_it_missed() {
    let host = Running::start().await;
    let mut response = watch(&host, "").await;
    for id in 0..20 {
        host.feed
            .send(happening("inventory", "committed", &id.to_string()))
            .unwrap();
    }
    let lines = lines(&mut response, 9).await;
    assert_eq!(lines[0], json!({ "missed": 12 }));
    assert_eq!(lines[1]["event_id"], "12");
    assert_eq!(lines[8]["event_id"], "19");
}

#[tokio::test]
async fn a_stop_ends_watchers_instead_of_waiting_for_them() {
    let mut host = Running::start().await;
    let mut response = watch(&host, "").await;
    let serving = host.serving.take().unwrap();
    assert!(serving.stop(Duration::from_secs(10)).await, "all was answered in time");
    assert!(response.chunk().await.unwrap().is_none());
    assert!(host.client.get(host.url("/healthz")).send().await.is_err());
}

#[tokio::test]
async fn watchers_are_bounded_and_their_places_come_free() {
    let host = Running::start().await;
    let mut watching = Vec::new();
    for _ in 0..crate::admin::WATCHING_MAX {
        watching.push(watch(&host, "").await);
    }
    let (status, body) = host.get("/api/v1/tail").await;
    assert_eq!((status, &body["error"]), (503, &json!("admin-busy")));
    drop(watching);
    for _ in 0..500 {
        let response = host.client.get(host.url("/api/v1/tail")).send().await.unwrap();
        if response.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place came free");
}
