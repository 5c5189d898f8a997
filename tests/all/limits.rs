//! Whatever a plugin does, it is stopped in its own way, in time, and the next event does not notice.

use tidegate::outcome::Outcome;
use tidegate_tests::guests::build;
use tidegate_tests::plugins::{State, call, consumer, event, try_load};

#[tokio::test]
async fn a_good_event_is_handled() {
    let plugin = try_load(consumer(build("hostile"))).await.unwrap();
    let done = call(&plugin, &event("ok", ""), &State::default()).await;
    assert_eq!(done.outcome, Outcome::Succeeded);
}
