//! The broker suite over real servers, and what is special about each broker.

mod nats;
