//! The suite that every broker passes: what [`Broker`], [`Source`](super::Source), [`Settle`] and [`Publisher`] promise, tried on
//! the real thing.
//!
//! [`broker_suite!`](crate::broker_suite) makes a test of each behaviour. What a broker can't do it declares on its [`Stand`] or in
//! its [`Promises`](super::Promises); the behaviour then tests what is left of it, and says so where nothing is.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "a suite of tests: a panic is how it reports"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{Broker, Delivery, Error, Outgoing, Publisher, Room, Settle, Settlement, Source, Subscription};
use crate::event::{Headers, Message};
use crate::plan;

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a behaviour may take in all.
const BEHAVIOUR_TIME: Duration = Duration::from_secs(120);
/// How long nothing must come before we believe that nothing will.
const QUIET: Duration = Duration::from_millis(300);
/// More than any behaviour needs.
const ROOM: Room = Room {
    count: 4_096,
    bytes: 64 << 20,
};

/// A broker to be tried, with one stream that nobody else uses. Fresh for each behaviour.
pub trait Stand: Send + Sync {
    /// The stream, readable and writable.
    fn stream(&self) -> Arc<plan::Stream>;

    /// The subject that messages are written with; on arrival they have the same.
    fn subject(&self) -> String;

    /// Opens the broker as a host does when it starts. Everything of an earlier opening has been dropped.
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Broker>, Error>>;

    /// How long the broker waits for a settlement before it gives a delivery again; `None` if it knows no such wait. Keep it
    /// short: the suite waits for longer.
    fn ack_deadline(&self) -> Option<Duration>;

    /// Stops the broker without warning, keeping what it stored. `false` if it can't be away while a host runs.
    fn stop(&self) -> BoxFuture<'_, bool>;

    /// Starts it again, where it was.
    fn start(&self) -> BoxFuture<'_, ()>;
}

/// Makes one test of each behaviour: `broker_suite!(stand)`, where `async fn stand() -> impl Stand`.
#[macro_export]
macro_rules! broker_suite {
    ($stand:path) => {
        $crate::broker_suite!($stand:
            delivers_in_order_and_untouched,
            every_consumer_gets_everything,
            never_gives_more_than_the_room,
            what_is_settled_does_not_come_again,
            unsettled_comes_again_in_order_after_a_crash,
            handed_back_comes_again,
            a_held_delivery_does_not_come_again,
            a_repeated_id_is_one_message,
            a_dropped_next_loses_nothing,
            a_source_says_when_it_is_quiet,
            too_large_is_refused,
            nothing_is_lost_while_the_broker_is_away,
        );
    };
    ($stand:path: $($behaviour:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let stand = $stand().await;
                let behaviour = $crate::broker::suite::$behaviour(&stand);
                $crate::broker::suite::in_time(stringify!($behaviour), behaviour).await;
            }
        )+
    };
}

/// Fails a behaviour that does not end.
pub async fn in_time(what: &str, behaviour: impl Future<Output = ()>) {
    let ended = timeout(BEHAVIOUR_TIME, behaviour).await;
    assert!(ended.is_ok(), "{what} has not ended within {BEHAVIOUR_TIME:?}");
}

/// Messages arrive in the order in which they were published, with every header and byte.
pub async fn delivers_in_order_and_untouched(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    let odd = [Vec::new(), vec![b'x'; 64 << 10], (0..=255).collect()];
    let many = (0..2_500).map(|number| format!("message {number}").into_bytes());
    let sent: Vec<Message> = odd.into_iter().chain(many).map(|body| message(stand, body)).collect();
    host.publish(sent.clone()).await;

    let got = reader.take(sent.len()).await;
    for (number, (sent, got)) in sent.iter().zip(&got).enumerate() {
        let got = &got.message;
        assert!(
            sent.payload == got.payload,
            "body {number} changed, or came out of order"
        );
        assert_eq!(sent.subject, got.subject, "the subject of message {number} changed");
        for (name, _) in sent.headers.iter() {
            assert_eq!(
                lines(&sent.headers, name),
                lines(&got.headers, name),
                "header {name} of message {number} changed"
            );
        }
    }
    assert_ascending(&got);
    reader.expect_nothing("after everything had come").await;
}

/// Each consumer has its own cursor.
pub async fn every_consumer_gets_everything(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut first = host.read("first").await;
    host.publish_numbers(0..10).await;
    // Settling for one consumer is nothing to the others, also to one that comes later.
    let got = first.take(10).await;
    first.settle(got, Settlement::Done).await;
    let mut second = host.read("second").await;
    assert_eq!(numbers(&second.take(10).await), Vec::from_iter(0..10));
    host.publish_numbers(10..20).await;
    assert_eq!(numbers(&first.take(10).await), Vec::from_iter(10..20));
    assert_eq!(numbers(&second.take(10).await), Vec::from_iter(10..20));
}

/// What is returned is at most the room; one that is larger than the room comes alone.
pub async fn never_gives_more_than_the_room(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish(vec![message(stand, vec![b'x'; 1_000]); 60]).await;
    let size = 1_000 + message(stand, Vec::new()).size();
    let rooms = [
        (7, 1 << 20, 7),
        (1, 1 << 20, 1),
        (50, 3 * size, 3),
        (50, 10, 1),
        (50, 0, 1),
    ];
    let mut taken = Vec::new();
    while taken.len() < 60 {
        let (count, bytes, most) = rooms[taken.len() % rooms.len()];
        let batch = reader.next(Room { count, bytes }).await;
        assert!(!batch.is_empty(), "a batch has at least one delivery");
        assert!(
            batch.len() <= most,
            "room for {count} deliveries and {bytes} bytes holds {most}; {} came",
            batch.len()
        );
        taken.extend(batch);
    }
    assert_eq!(taken.len(), 60, "deliveries came twice");
    assert_ascending(&taken);
}

/// A settlement outlives the host.
pub async fn what_is_settled_does_not_come_again(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..10).await;
    let got = reader.take(10).await;
    reader.settle(got, Settlement::Done).await;
    drop((reader, host));

    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(10..11).await;
    assert_eq!(numbers(&reader.take(1).await), [10], "what was settled came again");
}

/// After a crash the lowest unsettled delivery comes first, and the rest in order; settled ones among them may come again.
pub async fn unsettled_comes_again_in_order_after_a_crash(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..30).await;
    let mut taken = reader.take_in_rooms_of(20, 20).await;
    let settled: Vec<Delivery> = taken.drain(2..4).collect();
    reader.settle(settled, Settlement::Done).await;
    drop((taken, reader, host));

    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    let goes_back = reader.goes_back;
    let mut got = Vec::new();
    let all: BTreeSet<u64> = (0..30).filter(|number| !(2..4).contains(number)).collect();
    while !all.is_subset(&numbers(&got).into_iter().collect()) {
        // Fails by itself when nothing more comes.
        got.extend(reader.next(ROOM).await);
    }
    if goes_back {
        assert_eq!(
            numbers(&got).first(),
            Some(&0),
            "the lowest unsettled delivery did not come first"
        );
        assert_ascending(&got);
    }
    reader.settle(got, Settlement::Done).await;
    reader.expect_nothing("after everything was settled").await;
}

/// What is handed back comes again, and what is kept does not.
pub async fn handed_back_comes_again(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..6).await;
    let mut taken = reader.take(6).await;
    let back = taken.split_off(3);
    reader.settle(back, Settlement::HandBack).await;
    let again = reader.take(3).await;
    assert_eq!(numbers(&again), [3, 4, 5], "what was handed back did not come again");
    reader.settle(taken, Settlement::Done).await;
    reader.settle(again, Settlement::Done).await;
    drop((reader, host));

    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_nothing("after everything was settled").await;
}

/// However long a delivery is held, the broker does not give it again meanwhile.
pub async fn a_held_delivery_does_not_come_again(stand: &dyn Stand) {
    let Some(deadline) = stand.ack_deadline() else {
        eprintln!("declared: this broker has no deadline for settling");
        return;
    };
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..3).await;
    let held = reader.take(3).await;
    reader.expect_nothing_for(deadline * 5 / 2).await;
    reader.settle(held, Settlement::Done).await;
    drop((reader, host));

    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_nothing("after it was settled late").await;
}

/// Publishing an id twice gives one message, and both times it counts as confirmed.
pub async fn a_repeated_id_is_one_message(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..5).await;
    host.publish_numbers(0..6).await;
    assert_eq!(
        numbers(&reader.take(6).await),
        Vec::from_iter(0..6),
        "an id was published twice"
    );
    reader.expect_nothing("after one message for each id").await;
}

/// A `next` that is dropped while it waits loses nothing and gives nothing twice.
pub async fn a_dropped_next_loses_nothing(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    let publish = async {
        for start in (0..300).step_by(10) {
            host.publish_numbers(start..start + 10).await;
        }
    };
    let take = async {
        let mut taken = Vec::new();
        let mut drops = 0_u64;
        while taken.len() < 300 {
            assert!(
                drops < 1_000_000,
                "only {} of 300 came: the rest was dropped",
                taken.len()
            );
            // From "at once" to "after a few packets": every wait inside is cut somewhere.
            let pause = Duration::from_micros(drops % 50 * 20);
            let room = Room {
                count: 7,
                bytes: 1 << 20,
            };
            match timeout(pause, reader.source.next(room)).await {
                Ok(batch) => taken.extend(batch.expect("the broker is there")),
                Err(_) => drops += 1,
            }
        }
        taken
    };
    let both = futures_util::future::join(publish, take);
    let ((), taken) = timeout(PATIENCE * 2, both).await.expect("all 300 come in time");
    assert_eq!(numbers(&taken), Vec::from_iter(0..300));
}

/// A source says that it has given everything, when there never was anything and after what there was.
pub async fn a_source_says_when_it_is_quiet(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_quiet().await;
    host.publish_numbers(0..3).await;
    let taken = reader.take(3).await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    reader.expect_quiet().await;
    reader.settle(taken, Settlement::Done).await;
    reader.expect_quiet().await;
}

/// A message over the limit is refused for good, and those beside it are not.
pub async fn too_large_is_refused(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    let too_large = vec![0; host.publisher.size_max() + 1];
    let batch = [b"0".to_vec(), too_large, b"1".to_vec()]
        .into_iter()
        .enumerate()
        .map(|(number, body)| outgoing(number as u64, message(stand, body)))
        .collect();
    let results = host.publisher.publish(batch).await;
    match results.as_slice() {
        [Ok(()), Err(Error::Refused { .. }), Ok(())] => {}
        other => panic!("expected that only the second is refused, got {other:?}"),
    }
    assert_eq!(numbers(&reader.take(2).await), [0, 1]);
}

/// While the broker is away both ends say so; when it is back both go on by themselves, and nothing is missing.
pub async fn nothing_is_lost_while_the_broker_is_away(stand: &dyn Stand) {
    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    host.publish_numbers(0..10).await;
    let mut taken = reader.take_in_rooms_of(5, 5).await;
    let settled = taken.drain(1..3).collect();
    reader.settle(settled, Settlement::Done).await;
    if !stand.stop().await {
        eprintln!("declared: this broker can't be away while a host runs");
        return;
    }

    let error = timeout(PATIENCE, async {
        loop {
            match reader.source.next(ROOM).await {
                Ok(batch) => taken.extend(batch),
                Err(error) => return error,
            }
        }
    });
    let error = error.await.expect("the source says that the broker is away");
    assert!(
        matches!(error, Error::Unreachable { .. }),
        "a broker that is away is unreachable, not: {error}"
    );
    let result = host.try_publish_numbers(10..11).await;
    assert!(
        matches!(result.as_slice(), [Err(Error::Unreachable { .. })]),
        "a broker that is away is unreachable, not: {result:?}"
    );

    stand.start().await;
    host.publish_in_the_end(10..20).await;
    reader.take_in_the_end(18, &mut taken).await;
    let expected: Vec<u64> = (0..20).filter(|number| !(1..3).contains(number)).collect();
    assert_eq!(numbers(&taken), expected, "each comes once, and in order");
    reader.settle(taken, Settlement::Done).await;
    drop((reader, host));

    let host = Host::start(stand).await;
    let mut reader = host.read("reader").await;
    reader.expect_nothing("after everything was settled").await;
}

/// One run of a host, as far as a broker sees it.
pub struct Host<'a> {
    stand: &'a dyn Stand,
    /// The open broker.
    pub broker: Arc<dyn Broker>,
    /// Writes the stream.
    pub publisher: Arc<dyn Publisher>,
}

impl<'a> Host<'a> {
    /// Opens the broker.
    pub async fn start(stand: &'a dyn Stand) -> Self {
        let broker = stand.open().await.expect("the broker opens");
        broker.check().await.expect("the broker answers");
        let publisher = broker.publisher(stand.stream()).await;
        Self {
            stand,
            broker,
            publisher: publisher.expect("the stream can be written"),
        }
    }

    /// Subscribes a consumer.
    pub async fn read(&self, consumer: &str) -> Reader {
        let subscription = Subscription {
            consumer: plan::Name::new(consumer).expect("a name"),
            stream: self.stand.stream(),
            room: ROOM,
        };
        let subscribed = self
            .broker
            .subscribe(subscription)
            .await
            .expect("the stream can be read");
        Reader {
            source: subscribed.source,
            settle: subscribed.settle,
            goes_back: subscribed.promises.goes_back,
        }
    }

    /// Publishes messages under ids of their own.
    pub async fn publish(&self, messages: Vec<Message>) {
        let batch = messages.into_iter().enumerate();
        let batch = batch.map(|(number, message)| outgoing(number as u64, message));
        for result in self.publisher.publish(batch.collect()).await {
            result.expect("the broker takes the message");
        }
    }

    /// Publishes messages that say their number, each number always under the same id.
    pub async fn publish_numbers(&self, numbers: std::ops::Range<u64>) {
        for result in self.try_publish_numbers(numbers).await {
            result.expect("the broker takes the message");
        }
    }

    /// As [`Host::publish_numbers`], and gives what the broker said.
    pub async fn try_publish_numbers(&self, numbers: std::ops::Range<u64>) -> Vec<Result<(), Error>> {
        let body = |number: u64| message(self.stand, number.to_string().into_bytes());
        let batch = numbers.map(|number| outgoing(number, body(number)));
        self.publisher.publish(batch.collect()).await
    }

    /// As [`Host::publish_numbers`], again and again until the broker has them all.
    pub async fn publish_in_the_end(&self, numbers: std::ops::Range<u64>) {
        let publish = async {
            for number in numbers {
                while let [Err(error)] = self.try_publish_numbers(number..number + 1).await.as_slice() {
                    assert!(
                        matches!(error, Error::Unreachable { .. }),
                        "the broker is on its way back, and the publisher says: {error}"
                    );
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        timeout(PATIENCE, publish)
            .await
            .expect("the broker takes messages again");
    }
}

/// A subscription.
pub struct Reader {
    /// The half that takes.
    pub source: Box<dyn Source>,
    /// The half that settles.
    pub settle: Arc<dyn Settle>,
    goes_back: bool,
}

impl Reader {
    /// The next batch.
    pub async fn next(&mut self, room: Room) -> Vec<Delivery> {
        timeout(PATIENCE, self.source.next(room))
            .await
            .expect("a delivery comes in time")
            .expect("the broker is there")
    }

    /// Takes exactly so many.
    pub async fn take(&mut self, count: usize) -> Vec<Delivery> {
        self.take_in_rooms_of(count, ROOM.count).await
    }

    /// Takes exactly so many, never asking for more than `most`.
    pub async fn take_in_rooms_of(&mut self, count: usize, most: usize) -> Vec<Delivery> {
        let mut taken: Vec<Delivery> = Vec::new();
        while taken.len() < count {
            let room = Room {
                count: most.min(count - taken.len()),
                ..ROOM
            };
            let next = timeout(PATIENCE, self.source.next(room)).await;
            let batch = next
                .unwrap_or_else(|_| panic!("only {} of {count} deliveries came: {:?}", taken.len(), numbers(&taken)));
            taken.extend(batch.expect("the broker is there"));
        }
        taken
    }

    /// The source says that there is nothing more.
    pub async fn expect_quiet(&mut self) {
        let batch = timeout(super::QUIET, self.source.next(ROOM))
            .await
            .expect("the source says that it is quiet");
        assert_eq!(
            numbers(&batch.expect("the broker is there")),
            Vec::<u64>::new(),
            "nothing more"
        );
    }

    /// Takes until there are so many, through errors of a broker that is on its way back.
    pub async fn take_in_the_end(&mut self, count: usize, taken: &mut Vec<Delivery>) {
        let mut latest = None;
        let take = async {
            while taken.len() < count {
                match self.source.next(ROOM).await {
                    Ok(batch) => taken.extend(batch),
                    Err(error @ Error::Unreachable { .. }) => {
                        latest = Some(error);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("the broker is back, and the source says: {error}"),
                }
            }
        };
        if timeout(PATIENCE, take).await.is_err() {
            panic!("only {} of {count} came; the latest error: {latest:?}", taken.len());
        }
    }

    /// Settles deliveries.
    pub async fn settle(&self, deliveries: Vec<Delivery>, settlement: Settlement) {
        let settled = deliveries
            .into_iter()
            .map(|delivery| (delivery.receipt, settlement))
            .collect();
        self.settle.settle(settled).await.expect("the broker hears of it");
    }

    /// Nothing may come now.
    pub async fn expect_nothing(&mut self, when: &str) {
        if let Ok(batch) = timeout(QUIET, self.some()).await {
            panic!("{when} came {:?}", batch.map(|batch| numbers(&batch)));
        }
    }

    /// Nothing may come for so long.
    pub async fn expect_nothing_for(&mut self, time: Duration) {
        if let Ok(batch) = timeout(time, self.some()).await {
            panic!("came again while it was held: {:?}", batch.map(|batch| numbers(&batch)));
        }
    }

    /// The next batch that is not empty, or error.
    async fn some(&mut self) -> Result<Vec<Delivery>, Error> {
        loop {
            match self.source.next(ROOM).await {
                Ok(batch) if batch.is_empty() => {}
                other => return other,
            }
        }
    }
}

/// A message with headers of every sort that all brokers carry: text beyond ASCII, repeated names, empty values.
fn message(stand: &dyn Stand, body: Vec<u8>) -> Message {
    let mut headers = Headers::default();
    headers.push("ce-specversion", "1.0");
    headers.push("ce-type", "com.example.order.placed");
    headers.push("Repeated", "second");
    headers.push("Repeated", "first");
    headers.push("umlaut", "größer als %20");
    headers.push("empty", "");
    Message {
        subject: stand.subject(),
        headers,
        payload: Bytes::from(body),
    }
}

fn outgoing(number: u64, message: Message) -> Outgoing {
    Outgoing {
        id: format!("id-{number}").into(),
        key: Arc::from(*b"key"),
        message,
    }
}

fn lines<'a>(headers: &'a Headers, name: &str) -> Vec<&'a [u8]> {
    let of_name = headers.iter().filter(|(found, _)| *found == name);
    of_name.map(|(_, value)| value).collect()
}

/// What the bodies say; bodies that say no number are left out.
#[must_use]
pub fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    let text = |delivery: &Delivery| std::str::from_utf8(&delivery.message.payload).ok()?.parse().ok();
    deliveries.iter().filter_map(text).collect()
}

/// Positions rise, so that nothing came twice or out of order.
pub fn assert_ascending(deliveries: &[Delivery]) {
    for pair in deliveries.windows(2) {
        assert!(
            pair[0].position < pair[1].position,
            "{:?} came before {:?}",
            pair[0].position,
            pair[1].position
        );
    }
}
