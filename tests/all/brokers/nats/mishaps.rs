//! What administrators, other clients and the wire do to a consumer while it is read.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream;
use futures_util::StreamExt;
use tidegate::broker::suite::{Host, Reader, Stand, numbers};
use tidegate::broker::{Delivery, Error, Room, Settlement, suite};
use tidegate::event::Message;
use tidegate::plan::{self, NatsCredentials};
use tidegate_tests::servers;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ACK_WAIT, Nats, broker_at, created, stand, stream_on};

/// Longer than any test: what comes before it has passed did not come because of it.
const LONG: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);
const ROOM: Room = Room {
    count: 100,
    bytes: 1 << 20,
};

fn patient(place: plan::JetStream) -> plan::JetStream {
    plan::JetStream {
        ack_wait: LONG,
        ..place
    }
}

fn on_server(name: &str) -> plan::JetStream {
    plan::JetStream {
        stream: Some(name.to_owned()),
        create: false,
        ..patient(created())
    }
}

async fn refusal(reader: &mut Reader) -> String {
    let next = async {
        loop {
            match reader.source.next(ROOM).await {
                Err(Error::Misconfigured { reason, .. }) => return reason,
                Err(Error::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                other => panic!("expected to be told what is wrong, got {other:?}"),
            }
        }
    };
    timeout(PATIENCE, next).await.expect("the source says what is wrong")
}

/// Takes until a number has come, over passing errors.
async fn take_until(reader: &mut Reader, last: u64) -> Vec<Delivery> {
    let mut taken = Vec::new();
    let take = async {
        while !numbers(&taken).contains(&last) {
            match reader.source.next(ROOM).await {
                Ok(batch) => taken.extend(batch),
                Err(Error::Refused { .. }) => panic!("a source refuses no message"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let in_time = timeout(PATIENCE, take).await.is_ok();
    assert!(in_time, "{last} did not come, only {:?}", numbers(&taken));
    taken
}

/// As [`take_until`], settling as it goes; gives the messages.
async fn take_and_settle_until(reader: &mut Reader, last: u64) -> Vec<(u64, Message)> {
    let mut taken = Vec::new();
    let take = async {
        loop {
            match reader.source.next(ROOM).await {
                Ok(batch) => {
                    for delivery in batch {
                        taken.extend(
                            numbers(std::slice::from_ref(&delivery))
                                .pop()
                                .map(|number| (number, delivery.message)),
                        );
                        let _ = reader.settle.settle(vec![(delivery.receipt, Settlement::Done)]).await;
                    }
                }
                Err(Error::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
            if taken.last().is_some_and(|(number, _)| *number == last) {
                return;
            }
        }
    };
    let in_time = timeout(PATIENCE, take).await.is_ok();
    let seen: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
    assert!(in_time, "{last} did not come, only {seen:?}");
    taken
}

/// Publishes what no client library would.
async fn publish_raw(stand: &Nats, headers: &[u8], body: &[u8]) {
    let address = stand.server.lock().unwrap().url().replace("nats://", "");
    let mut socket = BufReader::new(TcpStream::connect(address).await.unwrap());
    let connect = br#"CONNECT {"headers":true,"verbose":false,"pedantic":false}"#.as_slice();
    let line = format!(
        "HPUB {} {} {}\r\n",
        stand.subject(),
        headers.len(),
        headers.len() + body.len()
    );
    let bytes = [connect, b"\r\n", line.as_bytes(), headers, body, b"\r\nPING\r\n"].concat();
    socket.write_all(&bytes).await.unwrap();
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "the server hung up");
        assert!(!line.starts_with("-ERR"), "{line}");
    }
}

async fn settle_all_and_see_nothing_again(stand: &Nats, reader: Reader, taken: Vec<Delivery>) {
    reader.settle(taken, Settlement::Done).await;
    drop(reader);
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_nothing("after everything was settled").await;
}

#[tokio::test]
async fn a_stream_that_is_missing_is_named_with_what_to_do() {
    let server = servers::Nats::start();
    let broker = broker_at(server.url(), NatsCredentials::None, None);
    let by_subject = plan::JetStream {
        create: false,
        ..created()
    };
    for (place, name) in [(on_server("ORDERS"), "ORDERS"), (by_subject, "orders.>")] {
        let stand = Nats::reading(servers::Nats::start(), place);
        let open = stand.open().await.unwrap();
        let subscription = tidegate::broker::Subscription {
            consumer: plan::Name::new("reader").unwrap(),
            stream: stand.stream(),
            room: ROOM,
        };
        let errors = [
            open.subscribe(subscription).await.err(),
            open.publisher(stand.stream()).await.err(),
        ];
        for error in errors {
            let text = error.expect("there is no such stream").to_string();
            assert!(text.contains(name) && text.contains("create = true"), "{text}");
        }
    }
    // Where nothing is named or created, it shows when a message finds no stream.
    let place = plan::JetStream {
        subjects: Vec::new(),
        create: false,
        ..created()
    };
    let stand = Nats {
        stream: stream_on(&broker, place),
        broker,
        server: std::sync::Mutex::new(server),
    };
    let results = Host::start(&stand).await.try_publish_numbers(0..2).await;
    for result in results {
        let error = result.expect_err("no stream takes it");
        assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
        assert!(error.to_string().contains(&stand.subject()), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_read_from_its_start() {
    let stand = Nats::reading(servers::Nats::start(), on_server("ORDERS"));
    let administrator = stand.administrator().await;
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Default::default()
    };
    administrator.create_stream(config.clone()).await.unwrap();
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..5).await;
    let old = reader.take(5).await;

    administrator.delete_stream("ORDERS").await.unwrap();
    let reason = refusal(&mut reader).await;
    assert!(reason.contains("ORDERS"), "{reason}");

    administrator.create_stream(config).await.unwrap();
    host.publish_numbers(100..103).await;
    let new = take_until(&mut reader, 102).await;
    assert_eq!(numbers(&new), [100, 101, 102], "positions begin anew");
    // These have the positions of the new ones, and must not settle them.
    reader.settle(old, Settlement::Done).await;
    drop((reader, host, new));
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    let again = take_until(&mut reader, 102).await;
    assert_eq!(
        numbers(&again),
        [100, 101, 102],
        "a receipt of the old stream settled a new message"
    );
    drop(host);
    settle_all_and_see_nothing_again(&stand, reader, again).await;
}

#[tokio::test]
async fn deliveries_lost_on_the_way_come_in_order_and_at_once() {
    let stand = Nats::reading(servers::Nats::start(), patient(created()));
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..10).await;
    // Nothing is asked for yet. Someone else takes three, which is the same to us as losing them on the wire.
    let stream = stand.administrator().await.get_stream("orders").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer("tidegate-reader").await.unwrap();
    let stolen = consumer.fetch().max_messages(3).messages().await.unwrap();
    assert_eq!(stolen.count().await, 3);
    // The ack wait is minutes: in time they come only by going back.
    let taken = take_until(&mut reader, 9).await;
    assert_eq!(numbers(&taken), Vec::from_iter(0..10), "each once and in order");
    drop(host);
    settle_all_and_see_nothing_again(&stand, reader, taken).await;
}

#[tokio::test]
async fn a_missing_permission_is_named_and_reading_goes_on_when_it_is_given() {
    let with = |denied: &str| {
        format!(
            "authorization {{ users: [ {{ user: host, password: pw, permissions: {{ publish: {{ deny: [{denied}] }} }} }} ] }}"
        )
    };
    let server = servers::Nats::with_config(&with("\"$JS.API.CONSUMER.MSG.NEXT.>\", \"orders.secret\""));
    let credentials = NatsCredentials::Password {
        user: "host".to_owned(),
        password: plan::Secret::new("pw".to_owned()),
    };
    let broker = broker_at(server.url(), credentials, None);
    let stand = Nats {
        stream: stream_on(&broker, patient(created())),
        broker,
        server: std::sync::Mutex::new(server),
    };
    let host = Host::start(&stand).await;
    host.publish_numbers(0..3).await;
    let mut reader = host.read("reader").await;
    let reason = refusal(&mut reader).await;
    assert!(
        reason.contains("MSG.NEXT.orders.tidegate-reader") && reason.contains("permission"),
        "{reason}"
    );

    stand.server.lock().unwrap().restart_with(&with(""));
    let taken = take_until(&mut reader, 2).await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
}

#[tokio::test]
async fn a_consumer_is_brought_to_the_config_or_its_fault_is_named() {
    let stand = Nats::reading(servers::Nats::start(), patient(created()));
    let host = Host::start(&stand).await;
    let stream = stand.administrator().await.get_stream("orders").await.unwrap();
    let other = pull::Config {
        durable_name: Some("tidegate-reader".to_owned()),
        ack_wait: Duration::from_secs(1),
        max_deliver: 2,
        backoff: vec![Duration::from_secs(1)],
        inactive_threshold: Duration::from_secs(60),
        ..Default::default()
    };
    stream.create_consumer(other.clone()).await.unwrap();
    let _reader = host.read("reader").await;
    let config = stream.consumer_info("tidegate-reader").await.unwrap().config;
    assert_eq!(
        (config.ack_wait, config.max_deliver, config.inactive_threshold),
        (LONG, -1, Duration::ZERO)
    );
    assert!(config.backoff.is_empty(), "a backoff overrides the ack wait");

    let unfit = pull::Config {
        durable_name: Some("tidegate-unfit".to_owned()),
        ack_policy: AckPolicy::None,
        ..Default::default()
    };
    stream.create_consumer(unfit).await.unwrap();
    let subscription = tidegate::broker::Subscription {
        consumer: plan::Name::new("unfit").unwrap(),
        stream: stand.stream(),
        room: ROOM,
    };
    let error = host.broker.subscribe(subscription).await.err().expect("it is unfit");
    assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("tidegate-unfit") && text.contains("delete it"), "{text}");
}

/// The suite sees only that nothing comes twice, which the source sees to as well; here it is the server that must not give it again.
#[tokio::test]
async fn held_deliveries_are_kept_alive_at_the_server_until_both_halves_are_dropped() {
    let stand = stand().await;
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..3).await;
    let held = reader.take(3).await;
    reader.expect_nothing_for(ACK_WAIT * 5 / 2).await;
    let stream = stand.administrator().await.get_stream("orders").await.unwrap();
    let consumer: PullConsumer = stream.get_consumer("tidegate-reader").await.unwrap();
    let info = stream.consumer_info("tidegate-reader").await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_redelivered), (3, 0));

    // Now the server must count on, though the deliveries themselves are still there.
    drop(reader);
    let again = consumer.batch().max_messages(3).expires(PATIENCE).messages();
    let again = timeout(PATIENCE, again.await.unwrap().count()).await;
    assert_eq!(again, Ok(3), "the dead subscription is still kept alive");
    drop(held);
}

/// On servers before 2.14 going back deletes the consumer; the bookmark is what a crash at that moment leaves.
#[tokio::test]
async fn a_consumer_that_was_lost_while_going_back_begins_at_its_bookmark() {
    let stand = Nats::reading(servers::Nats::start(), patient(created()));
    let host = Host::start(&stand).await;
    host.publish_numbers(0..10).await;
    let stream = stand.administrator().await.get_stream("orders").await.unwrap();
    let bookmark = pull::Config {
        durable_name: Some("tidegate-reader_bookmark".to_owned()),
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 7 },
        ..Default::default()
    };
    stream.create_consumer(bookmark).await.unwrap();
    let mut reader = host.read("reader").await;
    assert_eq!(numbers(&reader.take(4).await), [6, 7, 8, 9]);
    let left = stream.consumer_info("tidegate-reader_bookmark").await;
    assert!(left.is_err(), "the bookmark is left behind");
}

#[tokio::test]
async fn only_the_subjects_that_are_read_come() {
    let place = plan::JetStream {
        subjects: vec!["orders.eu.>".to_owned()],
        ..on_server("ORDERS")
    };
    let stand = Nats::reading(servers::Nats::start(), place);
    let administrator = stand.administrator().await;
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Default::default()
    };
    administrator.create_stream(config).await.unwrap();
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    for number in 0..10 {
        let subject = if number % 2 == 0 {
            "orders.us.placed"
        } else {
            "orders.eu.placed"
        };
        let published = administrator.publish(subject, number.to_string().into()).await;
        published.unwrap().await.unwrap();
    }
    let taken = take_until(&mut reader, 9).await;
    assert_eq!(numbers(&taken), [1, 3, 5, 7, 9]);
}

#[tokio::test]
async fn a_work_queue_is_read_in_order_across_a_crash() {
    let stand = retaining(stream::RetentionPolicy::WorkQueue).await;
    suite::unsettled_comes_again_in_order_after_a_crash(&stand).await;
    let mut stream = stand.administrator().await.get_stream("ORDERS").await.unwrap();
    let left = stream.info().await.unwrap().state.messages;
    assert_eq!(left, 0, "settled messages are left in the queue");
}

#[tokio::test]
async fn a_stream_kept_by_interest_is_read_in_order_or_refused_at_once() {
    let stand = retaining(stream::RetentionPolicy::Interest).await;
    let host = stand.open().await.unwrap();
    let subscription = tidegate::broker::Subscription {
        consumer: plan::Name::new("reader").unwrap(),
        stream: stand.stream(),
        room: ROOM,
    };
    match host.subscribe(subscription).await {
        Ok(_) => {
            drop(host);
            suite::unsettled_comes_again_in_order_after_a_crash(&stand).await;
        }
        Err(error) => assert!(error.to_string().contains("2.14 or newer"), "{error}"),
    }
}

async fn retaining(retention: stream::RetentionPolicy) -> Nats {
    let stand = Nats::reading(servers::Nats::start(), on_server("ORDERS"));
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        retention,
        ..Default::default()
    };
    stand.administrator().await.create_stream(config).await.unwrap();
    stand
}

#[tokio::test]
async fn a_message_with_headers_that_are_no_text_stops_nobody() {
    headers_that_are_no_text(stream::RetentionPolicy::Limits).await;
}

#[tokio::test]
async fn a_message_with_headers_that_are_no_text_stops_no_work_queue() {
    headers_that_are_no_text(stream::RetentionPolicy::WorkQueue).await;
}

/// The client hangs up on header lines that are no UTF-8 or no lines at all, which anybody may have published.
async fn headers_that_are_no_text(retention: stream::RetentionPolicy) {
    let stand = retaining(retention).await;
    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..3).await;
    publish_raw(&stand, b"NATS/1.0\r\nname: \xe9t\xe9\r\nName: x\r\n\r\n", b"3").await;
    publish_raw(&stand, b"NATS/1.0\r\nno line\r\n\r\n", b"4").await;
    publish_raw(&stand, b"NATS/1.0 503\r\n\r\n", b"5").await;
    host.publish_numbers(6..8).await;
    publish_raw(&stand, b"NATS/1.0\r\n\xff\r\n\r\n", b"8").await;
    let taken = take_and_settle_until(&mut reader, 8).await;
    let seen: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
    assert_eq!(seen, Vec::from_iter(0..9));
    let name = taken[3].1.headers.get("name");
    assert_eq!(name, Some(b"\xe9t\xe9".as_slice()), "its bytes are kept");
    host.publish_in_the_end(9..10).await;
    let taken = take_and_settle_until(&mut reader, 9).await;
    assert_eq!(taken.len(), 1, "what was settled came again");
    drop((reader, host));

    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_nothing("after everything was settled").await;
}

/// A host that stops before it has settled such a message gets it again.
#[tokio::test]
async fn a_message_with_headers_that_are_no_text_outlives_a_crash() {
    let stand = Nats::reading(servers::Nats::start(), patient(created()));
    let host = Host::start(&stand).await;
    host.publish_numbers(0..2).await;
    publish_raw(&stand, b"NATS/1.0\r\n\xff\r\n\r\n", b"2").await;
    host.publish_numbers(3..5).await;
    let mut reader = host.read("reader").await;
    let mut taken = take_until(&mut reader, 1).await;
    // It waits for those before it, since the server has no delivery of it.
    let early = timeout(Duration::from_secs(1), take_until(&mut reader, 2)).await;
    assert!(early.is_err(), "it was handed out beside others");
    reader.settle(taken.drain(..1).collect(), Settlement::Done).await;
    reader.settle(taken, Settlement::Done).await;
    assert_eq!(numbers(&take_until(&mut reader, 2).await), [2]);
    drop((reader, host));

    let host = Host::start(&stand).await;
    let mut reader = host.read("reader").await;
    let taken = take_and_settle_until(&mut reader, 4).await;
    let seen: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
    // The server forgot that it gave the first two when the connection was lost, and then did not hear that they were settled.
    assert!(seen.ends_with(&[2, 3, 4]), "{seen:?}");
}
