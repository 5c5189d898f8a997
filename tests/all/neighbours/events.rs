//! Events beside events: keys, consumers, copies.

use std::time::Duration;

use tidegate_tests::host::{Home, Host, comes, until};
use tidegate_tests::sink::Sink;

use super::{consumer, embedded, send};
use crate::service::through;

/// One key that kept failing blocked all others, or its retry let later events of the key pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_keeps_failing_blocks_no_other_and_is_not_overtaken() {
    let sink = Sink::start().await;
    let home = Home::new(&through(&sink.url()).replace("attempts = 3", "attempts = 1000"));
    let host = home.start().await;
    let said = |key: &str| -> Vec<String> {
        let received = sink.received().into_iter();
        let of_key = received.filter(|received| received.cause.starts_with(key));
        of_key.map(|received| received.data).collect()
    };
    let put = async |host: &Host<'_>, key: &str, number: u32, data: &str| {
        let sent = host.send("state", &format!("{key}{number}"), key, data).await;
        assert_eq!(sent.unwrap(), 202);
    };
    // Until the config has `open`, the first of the bad key fails.
    put(&host, "bad", 0, "need open\nadd bad 1").await;
    for number in 1..50 {
        put(&host, "bad", number, "add bad 1").await;
        put(&host, "good", number, "add good 1").await;
    }
    until("the good key", async || said("good").len() == 49).await;
    assert_eq!(said("bad"), [""; 0], "one has overtaken");
    host.stop().await;
    let open = through(&sink.url()).replace("config = {}", "config = { open = \"yes\" }");
    home.configure(&open);
    let host = home.start().await;
    until("the bad key", async || said("bad").len() == 50).await;
    let counts = |count: u32| (1..=count).map(|n| format!("Ok({n})")).collect::<Vec<_>>();
    assert_eq!(said("bad"), counts(50));
    assert_eq!(said("good"), counts(49));
    host.stop().await;
}

/// A burst on one subject starved plugins that had nothing to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_one_stream_starves_no_other() {
    const BURST: u32 = 400;
    let mut config = embedded("work", "concurrency = 4");
    config = config.replace("\"/in\" = \"in\"", "\"/in\" = \"in\", \"/quiet\" = \"quiet\"");
    config += "[stream.quiet]\nbroker = \"main\"\n";
    config += &consumer("plain", "quiet");
    config += "grants = { state = true, config = {} }\n";
    let home = Home::new(&config);
    let host = home.start().await;
    send(&host, "wait", 0..BURST, "50").await;
    for number in 0..10 {
        let (status, _) = quiet(&host, number).await;
        assert_eq!(status, 202);
    }
    let done = comes(Duration::from_secs(60), async || {
        host.deliveries("plain", "committed").await == 10.0
    })
    .await;
    assert!(done, "they starve");
    let burst = host.deliveries("work", "committed").await;
    assert!(burst < f64::from(BURST), "the burst was over before");
    until("the burst", async || {
        host.deliveries("work", "committed").await == f64::from(BURST)
    })
    .await;
    host.stop().await;
}

async fn quiet(host: &Host<'_>, number: u32) -> (u16, String) {
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("http://{}/quiet", host.ingress()));
    let id = format!("q{number}");
    for (name, value) in [
        ("specversion", "1.0"),
        ("type", "state"),
        ("source", "/test"),
        ("id", &id),
        ("subject", &id),
    ] {
        request = request.header(format!("ce-{name}"), value);
    }
    let answer = request
        .header("content-type", "text/plain")
        .body("add n 1")
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
