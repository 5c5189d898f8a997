//! A webhook that sends to an ingress: nothing of an event is lost on the way.

use super::webhook::{publisher, webhook_plan};
use super::*;
use crate::event::codec;
use crate::plan;

fn hook_stream(mode: ContentMode) -> Stream {
    let parts = vec![TemplatePart::Literal("orders".to_owned())];
    Stream {
        name: name("hook"),
        broker: Arc::new(Broker {
            name: name("hook"),
            kind: BrokerKind::Webhook(webhook_plan("http://localhost".to_owned())),
        }),
        place: Place::Path(Template { parts }),
        mode,
        mapping: None,
    }
}

fn outgoing(event: &Event, mode: ContentMode) -> Outgoing {
    let message = codec::encode(event, &hook_stream(mode)).expect("encodes");
    Outgoing {
        id: event.id.as_str().into(),
        key: Arc::from([]),
        message,
    }
}

async fn ingress(publisher: Arc<Recorder>) -> (Serving, plan::Webhook) {
    let plan = Ingress {
        token: Some(Secret::new("s3cret".to_owned())),
        ..ingress_plan()
    };
    let serving = start(plan, &publisher).await;
    let plan = webhook_plan(format!("http://{}", serving.address()));
    (serving, plan)
}

#[tokio::test]
async fn binary_and_structured_events_arrive_whole() {
    let recorder = Recorder::new();
    let (_serving, plan) = ingress(recorder.clone()).await;
    let publisher = publisher(&plan).await;
    let sent = [event("one"), event("two")];
    let batch = vec![
        outgoing(&sent[0], ContentMode::Binary),
        outgoing(&sent[1], ContentMode::Structured),
    ];
    for answer in soon(publisher.publish(batch)).await {
        answer.expect("confirmed");
    }
    let mut arrived = recorder.events();
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(arrived, sent);
}

#[tokio::test]
async fn a_batch_arrives_whole() {
    let recorder = Recorder::new();
    let (_serving, plan) = ingress(recorder.clone()).await;
    let sent = [event("one"), event("two"), event("three")];
    let bodies = sent
        .iter()
        .map(|event| outgoing(event, ContentMode::Structured).message.payload);
    let bodies: Vec<String> = bodies
        .map(|body| String::from_utf8(body.to_vec()).expect("text"))
        .collect();
    let mut batch = outgoing(&sent[0], ContentMode::Structured);
    batch.message.payload = format!("[{}]", bodies.join(",")).into();
    batch.message.headers = crate::event::Headers::default();
    batch
        .message
        .headers
        .push("content-type", "application/cloudevents-batch+json");
    soon(publisher(&plan).await.publish(vec![batch]))
        .await
        .remove(0)
        .expect("confirmed");
    assert_eq!(recorder.events(), sent);
}

#[tokio::test]
async fn the_pause_that_a_broker_asks_for_reaches_the_sender() {
    let recorder = Recorder::answering(|_| {
        Err(Error::Unreachable {
            broker: name("main"),
            reason: "away".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        })
    });
    let (_serving, plan) = ingress(recorder).await;
    let batch = vec![outgoing(&event("one"), ContentMode::Binary)];
    let error = soon(publisher(&plan).await.publish(batch))
        .await
        .remove(0)
        .expect_err("away");
    let Error::Unreachable {
        retry_after, reason, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    assert!(reason.contains("broker-unreachable"), "{reason}");
}

#[tokio::test]
async fn an_event_sent_again_keeps_its_publish_id() {
    let recorder = Recorder::new();
    let (_serving, plan) = ingress(recorder.clone()).await;
    let publisher = publisher(&plan).await;
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        soon(publisher.publish(vec![outgoing(&event("one"), mode)]))
            .await
            .remove(0)
            .expect("confirmed");
    }
    let published = recorder.published();
    assert_eq!(published[0].id, published[1].id);
}
