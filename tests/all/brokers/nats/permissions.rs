//! The whole suite as a user who may do no more than `docs/nats.md` says.

use tidegate::plan::{NatsCredentials, Secret};
use tidegate_tests::servers;

use super::Nats;

const PAGE: &str = include_str!("../../../../docs/nats.md");

tidegate::broker_suite!(stand);

async fn stand() -> Nats {
    let permissions = PAGE.split("```").nth(1).unwrap().trim_start_matches("text");
    // Whoever asks nothing is the administrator of the tests.
    let config = format!(
        "authorization {{ users: [ {{ user: admin, password: x }}, {{ user: host, password: pw, {permissions} }} ] }}\nno_auth_user: admin"
    );
    let credentials = NatsCredentials::Password {
        user: "host".to_owned(),
        password: Secret::new("pw".to_owned()),
    };
    Nats::as_user(servers::Nats::with_config(&config), credentials)
}
