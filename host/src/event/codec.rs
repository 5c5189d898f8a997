//! CloudEvents bindings: an [`Event`] from a [`Message`] and back, by the rules of CloudEvents 1.0 for NATS and HTTP.
//!
//! Promises: what [`encode`] writes, [`decode`] reads back as the same event, in both content modes and both bindings, save
//! for what a format can't say: binary mode has no types, so an extension comes back as a string in its canonical form, and
//! no empty data, which comes back as none; structured mode drops white space around JSON data, which means nothing.
//! What is ambiguous (an attribute twice, `data` beside `data_base64`) is refused, not guessed at: two readers that guess
//! differently would not agree on what is a duplicate.
//!
//! Headers that are no attributes are left in the message for whoever knows them (`traceparent`, `Nats-Msg-Id`).

mod attribute;
mod batch;
mod binary;
mod error;
mod mapping;
mod media;
pub(crate) mod percent;
mod place;
mod structured;

use crate::event::{Event, Headers, Message};
use crate::plan;

pub(crate) use attribute::EXTENSIONS_MAX;
pub use batch::{BATCH_EVENTS_MAX, decode_batch};
pub use error::Error;

/// The rules that a message follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// NATS, and the embedded broker: every attribute in a `ce-` header, a body without headers may be a structured event.
    Nats,
    /// HTTP: `datacontenttype` is `Content-Type`; batches exist.
    Http,
}

impl Binding {
    /// The binding that a broker speaks.
    #[must_use]
    pub fn of(broker: &plan::BrokerKind) -> Self {
        match broker {
            plan::BrokerKind::Embedded | plan::BrokerKind::Nats(_) => Self::Nats,
            plan::BrokerKind::Webhook(_) => Self::Http,
        }
    }
}

/// How a message carries its event, by its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, data in the body.
    Binary,
    /// One event in the body, as JSON.
    Structured,
    /// A JSON array of events in the body.
    Batch,
    /// It says that it is an event, but in a format or mode that this binding or host does not read.
    Unsupported,
    /// Nothing in the headers says that it is an event.
    Foreign,
}

/// How a message with these headers carries its event.
///
/// A `Content-Type` of `application/cloudevents` decides; else a header of one of the four required attributes makes it binary.
#[must_use]
pub fn mode(headers: &Headers, binding: Binding) -> Mode {
    let declared = headers.get("content-type").and_then(media::declared);
    match declared {
        Some(media::Declared::Event) => Mode::Structured,
        Some(media::Declared::Batch) if binding == Binding::Http => Mode::Batch,
        // The HTTP binding lets an unknown format pass as binary if its attributes are in headers too.
        _ if binary::is_marked(headers) => Mode::Binary,
        Some(_) => Mode::Unsupported,
        None => Mode::Foreign,
    }
}

/// Reads the one event that a message carries. The data shares the message's payload where the format allows.
///
/// A message whose headers say nothing of CloudEvents becomes an event by `mapping`; under [`Binding::Nats`] a JSON body that
/// is a whole event is taken as one first, since the NATS binding's own example has no header.
///
/// # Errors
/// The message is at fault and will be every time: keep it untouched as a dead letter, or answer 400. A batch is an error here:
/// ask [`mode`] first and use [`decode_batch`].
pub fn decode(message: &Message, binding: Binding, mapping: Option<&plan::Mapping>) -> Result<Event, Error> {
    match mode(&message.headers, binding) {
        Mode::Binary => binary::decode(message, binding),
        Mode::Structured => structured::decode(&message.payload),
        Mode::Batch | Mode::Unsupported => Err(Error::unsupported(&message.headers)),
        Mode::Foreign => decode_foreign(message, binding, mapping),
    }
}

fn decode_foreign(message: &Message, binding: Binding, mapping: Option<&plan::Mapping>) -> Result<Event, Error> {
    let bare = binding == Binding::Nats && structured::is_likely(&message.payload);
    match (bare.then(|| structured::decode(&message.payload)), mapping) {
        (Some(Ok(event)), _) => Ok(event),
        (_, Some(mapping)) => mapping::decode(message, mapping),
        (Some(Err(error)), None) => Err(error),
        (None, None) => Err(Error::NotRecognised),
    }
}

/// Writes an event for a stream: content mode and place as the stream says, binding by its broker.
///
/// In a place, a `{type}` of `com.example.order` spans three NATS tokens: dots stay, so that `stock.>` and `stock.com.example.*`
/// select by prefix. Under a URL it is one path segment, escaped.
///
/// # Errors
/// [`Error::BadPlace`] if an attribute that the place needs is absent or unfit for it, [`Error::NotWritable`] if the stream names
/// no place. Both are for good.
pub fn encode(event: &Event, stream: &plan::Stream) -> Result<Message, Error> {
    let subject = place::render(event, stream)?;
    let binding = Binding::of(&stream.broker.kind);
    let (headers, payload) = match stream.mode {
        plan::ContentMode::Binary if binary::can_carry(event, binding) => binary::encode(event, binding),
        plan::ContentMode::Binary | plan::ContentMode::Structured => structured::encode(event),
    };
    Ok(Message {
        subject,
        headers,
        payload,
    })
}

/// Checks an event that was built by hand against the rules that [`decode`] applies to what arrives.
///
/// # Errors
/// Which attribute breaks which rule.
pub fn check(event: &Event) -> Result<(), Error> {
    attribute::check(event)
}

#[cfg(test)]
mod tests;
