//! What an administrator may do to the server under a running host, and servers that are not as the config says.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;

use async_nats::jetstream::stream;
use tidegate::broker::suite::{Host, PATIENCE, Stand, in_time, numbers};
use tidegate::broker::{self, Broker, Error, Outgoing, Room, Settlement, Subscribed, Subscription};
use tidegate::clock::Clock;
use tidegate::event::Message;
use tidegate::plan;
use tidegate_tests::servers;
use tokio::time::timeout;

use super::{Nats, broker_at, created, stream_on};

const ROOM: Room = Room {
    count: 1_024,
    bytes: 1 << 20,
};

async fn subscribe(broker: &dyn Broker, stream: Arc<plan::Stream>) -> Result<Subscribed, Error> {
    let subscription = Subscription {
        consumer: plan::Name::new("reader").unwrap(),
        stream,
        room: ROOM,
    };
    broker.subscribe(subscription).await
}

fn misconfigured(error: &Error) -> String {
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_deleted_is_made_anew_where_it_stood() {
    let stand = super::stand().await;
    let url = stand.broker_url();
    in_time("reading on", async {
        let host = Host::start(&stand).await;
        let mut reader = host.read("reader").await;
        host.publish_numbers(0..20).await;
        let mut taken = reader.take(20).await;
        let settled = taken.drain(..10).collect();
        reader.settle(settled, Settlement::Done).await;

        let client = async_nats::connect(url).await.unwrap();
        let orders = async_nats::jetstream::new(client).get_stream("orders").await.unwrap();
        assert!(orders.delete_consumer("tidegate-reader").await.unwrap().success);
        host.publish_numbers(20..30).await;
        reader.take_in_the_end(20, &mut taken).await;
        assert_eq!(numbers(&taken), Vec::from_iter(10..30), "each comes once, and in order");

        reader.settle(taken, Settlement::Done).await;
        let info = orders.consumer_info("tidegate-reader").await.unwrap();
        assert_eq!(info.config.durable_name.as_deref(), Some("tidegate-reader"));
    })
    .await;
}

/// Killed under load, again and again: what is published meanwhile comes once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing() {
    const NUMBERS: u64 = 1_500;
    let stand = super::stand().await;
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    let publish = host.publish_in_the_end(0..NUMBERS);
    let kill = async {
        for _ in 0..3 {
            assert!(stand.stop().await);
            stand.start().await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    let take = async {
        let mut all = Vec::new();
        while all.len() < NUMBERS as usize {
            let mut taken = Vec::new();
            reader.take_in_the_end(1, &mut taken).await;
            all.extend(numbers(&taken));
            let settled = taken.into_iter().map(|delivery| (delivery.receipt, Settlement::Done));
            // While the server is away this fails, and the settlement is repeated when the delivery is.
            let _ = reader.settle.settle(settled.collect()).await;
        }
        all
    };
    let ((), (), all) = timeout(PATIENCE * 3, futures_util::future::join3(publish, kill, take))
        .await
        .expect("everything comes in the end");
    assert_eq!(all, Vec::from_iter(0..NUMBERS), "each comes once, and in order");
}

#[tokio::test]
async fn a_stream_that_is_missing_is_named() {
    let server = servers::Nats::start();
    let plan = broker_at(server.url(), plan::NatsCredentials::None, None);
    let broker = broker::nats::connect(&plan, Clock::system()).await.unwrap();
    let place = plan::JetStream {
        create: false,
        ..created()
    };
    let by_name = plan::JetStream {
        stream: Some("SHOP".to_owned()),
        ..place.clone()
    };
    for (place, name) in [(place, "orders.>"), (by_name, "SHOP")] {
        let error = subscribe(broker.as_ref(), stream_on(&plan, place)).await.err().unwrap();
        let text = misconfigured(&error);
        assert!(text.contains(name) && text.contains("create = true"), "{text}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_from_one_that_is_away() {
    let server = servers::Nats::with_config("accounts { A { users: [ { user: host, password: x } ] } }");
    let credentials = plan::NatsCredentials::Password {
        user: "host".to_owned(),
        password: plan::Secret::new("x".to_owned()),
    };
    let plan = broker_at(server.url(), credentials, None);
    let broker = broker::nats::connect(&plan, Clock::system()).await.unwrap();
    let error = broker.check().await.unwrap_err();
    assert!(misconfigured(&error).contains("enable it"), "{error}");
}

/// Publishes messages of 10 KiB until one is not confirmed.
async fn publish_until_refused(stand: &Nats) -> Error {
    let host = Host::start(stand).await;
    let publish = async {
        for number in 0.. {
            let message = Message {
                subject: stand.subject(),
                payload: vec![b'x'; 10 << 10].into(),
                ..Message::default()
            };
            let outgoing = Outgoing {
                id: format!("m{number}").into(),
                key: Arc::from(b"k".as_slice()),
                message,
            };
            if let Err(error) = host.publisher.publish(vec![outgoing]).await.remove(0) {
                return error;
            }
        }
        unreachable!()
    };
    timeout(PATIENCE, publish).await.expect("it is refused in the end")
}

/// Its messages were dead letters, which none of them deserves.
#[tokio::test]
async fn a_full_account_may_have_room_later() {
    let server = servers::Nats::with_config(
        "accounts { A { users: [ { user: host, password: x } ], jetstream { max_file: 100K, max_memory: 0 } } }\nno_auth_user: host",
    );
    let error = publish_until_refused(&Nats::new(server)).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("resource limits exceeded"), "{error}");
}

#[tokio::test]
async fn a_full_stream_may_have_room_later() {
    let stand = super::stand().await;
    let config = stream::Config {
        name: "orders".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        max_bytes: 100 << 10,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    stand.administrator().await.create_stream(config).await.unwrap();
    let error = publish_until_refused(&stand).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("maximum bytes exceeded"), "{error}");
}

#[tokio::test]
async fn a_sealed_stream_is_a_matter_of_the_config() {
    let stand = super::stand().await;
    let config = stream::Config {
        name: "orders".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..stream::Config::default()
    };
    let administrator = stand.administrator().await;
    administrator.create_stream(config.clone()).await.unwrap();
    let sealed = stream::Config { sealed: true, ..config };
    administrator.update_stream(sealed).await.unwrap();
    let error = publish_until_refused(&stand).await;
    assert!(misconfigured(&error).contains("sealed"), "{error}");
}

#[tokio::test]
async fn a_message_over_the_streams_own_bound_is_refused() {
    let stand = super::stand().await;
    let config = stream::Config {
        name: "orders".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        max_message_size: 1 << 10,
        ..stream::Config::default()
    };
    stand.administrator().await.create_stream(config).await.unwrap();
    let error = publish_until_refused(&stand).await;
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_not_permitted_is_named() {
    let server = servers::Nats::with_config(
        r#"authorization { users: [ { user: host, password: x, permissions: { publish: { deny: "$JS.API.CONSUMER.MSG.NEXT.>" } } } ] }"#,
    );
    let credentials = plan::NatsCredentials::Password {
        user: "host".to_owned(),
        password: plan::Secret::new("x".to_owned()),
    };
    let plan = broker_at(server.url(), credentials, None);
    in_time("the refusal", async {
        let broker = broker::nats::connect(&plan, Clock::system()).await.unwrap();
        let mut reader = subscribe(broker.as_ref(), stream_on(&plan, created())).await.unwrap();
        let error = reader.source.next(ROOM).await.unwrap_err();
        assert!(
            misconfigured(&error).contains("$JS.API.CONSUMER.MSG.NEXT.orders.tidegate-reader"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let info =
            r#"{"server_id":"OLD","version":"2.11.9","proto":1,"max_payload":1048576,"headers":true,"jetstream":true}"#;
        write!(socket, "INFO {info}\r\n").unwrap();
        let lines = BufReader::new(socket.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line == "PING" && socket.write_all(b"PONG\r\n").is_err() {
                return;
            }
        }
    });
    let plan = broker_at(&format!("nats://{address}"), plan::NatsCredentials::None, None);
    let connected = timeout(PATIENCE, broker::nats::connect(&plan, Clock::system())).await;
    let error = connected.expect("an answer in time").err().expect("a refusal");
    let text = misconfigured(&error);
    assert!(text.contains("2.11.9") && text.contains("upgrade it to 2.12"), "{text}");
}

impl Nats {
    fn broker_url(&self) -> String {
        self.server.lock().unwrap().url().to_owned()
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    drop(listener);
    let plan = broker_at(&url, plan::NatsCredentials::None, None);
    let error = broker::nats::connect(&plan, Clock::system()).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error} does not say where");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let plan = broker_at(&url, plan::NatsCredentials::None, None);
    let connecting = timeout(PATIENCE, broker::nats::connect(&plan, Clock::system()));
    let error = connecting.await.expect("it gives up").err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
