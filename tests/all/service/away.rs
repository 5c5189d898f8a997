//! A broker that is away when the host starts, comes, is killed and comes back: the host says what it waits for, and goes on by itself.

use tidegate_tests::guests;
use tidegate_tests::host::{Home, Host, until};
use tidegate_tests::servers::Nats;

fn config(url: &str) -> String {
    let plugin = guests::build("plain");
    format!(
        r#"
[ledger]
url = "embedded:./data"

[broker.main]
url = "{url}"

[stream.scripts]
broker = "main"
subjects = ["scripts.>"]
subject = "scripts.{{type}}"
create = true

[stream.answers]
broker = "main"
subjects = ["answers.>"]
subject = "answers.{{type}}"
create = true

[ingress]
listen = "127.0.0.1:0"
routes = {{ "/in" = "scripts" }}

[consumer.plain]
plugin = "{}"
reads = "scripts"
writes = "answers"
grants = {{ state = true, config = {{}} }}
"#,
        plugin.display()
    )
}

/// Whether it says that it waits, and for whom.
async fn waits_for(host: &Host<'_>, url: &str) -> bool {
    let (status, body) = host.get("/readyz").await;
    status == 503 && body.contains(url) && host.get("/healthz").await.0 == 200
}

/// Puts in an event as soon as the broker takes it.
async fn send(host: &Host<'_>, id: &str) {
    until("it is taken", async || {
        host.send("state", id, "k", "add n 1").await.unwrap() == 202
    })
    .await;
}

async fn all_through(host: &Host<'_>, count: f64) -> bool {
    host.deliveries("plain", "committed").await == count && host.metric("tidegate_published_total{").await == count
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_waits_for_its_broker_says_so_and_goes_on_by_itself() {
    let mut nats = Nats::start();
    let address = nats.url().trim_start_matches("nats://").to_owned();
    nats.stop();
    let home = Home::new(&config(nats.url()));
    let host = home.start().await;
    until("it says for whom it waits", async || waits_for(&host, &address).await).await;
    assert!(host.log().contains(&address), "{}", host.log());
    nats.restart();
    host.until_ready().await;
    send(&host, "e1").await;
    until("the first", async || all_through(&host, 1.0).await).await;
    nats.kill();
    until("it notices", async || waits_for(&host, &address).await).await;
    nats.restart();
    send(&host, "e2").await;
    until("the second", async || all_through(&host, 2.0).await).await;
    host.until_ready().await;
    assert_eq!(host.deliveries("plain", "dead").await, 0.0);
    host.stop().await;
}

/// The publisher was kept for ever, and with it the word that its stream is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_made_anew_for_what_comes_in() {
    let nats = Nats::start();
    let home = Home::new(&format!(
        r#"
[ledger]
url = "embedded:./data"

[broker.main]
url = "{}"

[stream.scripts]
broker = "main"
subjects = ["scripts.>"]
subject = "scripts.{{type}}"
create = true

[ingress]
listen = "127.0.0.1:0"
routes = {{ "/in" = "scripts" }}
"#,
        nats.url()
    ));
    let host = home.start().await;
    send(&host, "e1").await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let server = async_nats::jetstream::new(client);
    for id in ["e2", "e3"] {
        assert!(server.delete_stream("scripts").await.unwrap().success);
        send(&host, id).await;
        let mut scripts = server.get_stream("scripts").await.unwrap();
        assert_eq!(scripts.info().await.unwrap().state.messages, 1, "{id}");
    }
    host.stop().await;
}
