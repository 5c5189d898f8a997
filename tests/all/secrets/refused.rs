//! What is refused is said without the secrets beside it: a config, and a login.

use nkeys::KeyPair;
use tidegate_tests::guests;
use tidegate_tests::host::until;
use tidegate_tests::servers::Nats;

use super::ear::Ear;
use super::{GRANT, INGRESS, PASSWORD, SECRETS, URL_PASSWORD, WRONG, config, environment, home, server};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_of_a_login_that_is_refused() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let (right, wrong) = (user.seed().unwrap(), other.seed().unwrap());
    let nkeys = Nats::with_config(&format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        user.public_key()
    ));
    let passwords = server();
    let mut ear = Ear::default();
    let files = home("");
    std::fs::write(
        files.path().join("broken.creds"),
        format!("-----BEGIN NATS USER JWT-----\n{WRONG}\n"),
    )
    .unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{WRONG}\n-----END PRIVATE KEY-----\n");
    std::fs::write(files.path().join("broken.pem"), pem).unwrap();
    for (url, way) in [
        (nkeys.url(), format!("nkey = \"{right}\"")),
        (nkeys.url(), format!("nkey = \"{wrong}\"")),
        (nkeys.url(), "nkey = \"${SEED}\"".to_owned()),
        (passwords.url(), format!("user = \"host\"\npassword = \"{WRONG}\"")),
        (passwords.url(), format!("token = \"{WRONG}\"")),
        (
            &passwords.url().replace("://", &format!("://host:{URL_PASSWORD}@")),
            String::new(),
        ),
        (passwords.url(), "creds = \"broken.creds\"".to_owned()),
        (
            passwords.url(),
            "cert = \"broken.pem\"\nkey = \"broken.pem\"".to_owned(),
        ),
    ] {
        std::fs::write(files.path().join("tidegate.toml"), asking(url, &way)).unwrap();
        let environment = [("TIDEGATE_LOG", "trace".to_owned()), ("SEED", wrong.clone())];
        let host = files.start_with(&environment).await.map_err(|ended| ended.log).unwrap();
        until("it is let in or knows why not", async || {
            let (status, body) = host.get("/readyz").await;
            status == 200 || body.contains("trouble")
        })
        .await;
        assert_eq!(host.get("/readyz").await.0 == 200, way.contains(&right), "{way}");
        for path in ["/readyz", "/metrics", "/api/v1/consumers"] {
            ear.hear(format!("{path} with {way}"), host.get(path).await.1);
        }
        host.signal("-TERM");
        ear.hear(format!("the log with {way}"), host.ended().await.2);
        ear.hear_command(&["check"], files.ask_with(&environment, &["check"]).await);
    }
    ear.hear_files(files.path(), &["tidegate.toml", "broken.creds", "broken.pem"]);
    let told = |secret: &str| {
        ear.places(secret)
            .into_iter()
            .map(|place| place.replace(secret, "it"))
            .collect::<Vec<_>>()
    };
    for secret in [&right, &wrong, WRONG, URL_PASSWORD] {
        assert_eq!(told(secret), Vec::<String>::new());
    }
    assert!(!ear.places("check the credentials").is_empty());
}

/// A consumer that reads from a broker which asks who it is.
fn asking(url: &str, way: &str) -> String {
    let plugin = guests::build("plain");
    format!(
        r#"
[ledger]
url = "embedded:./data"
[broker.bus]
url = "{url}"
{way}
[stream.scripts]
broker = "bus"
subjects = ["scripts.>"]
create = true
[consumer.plain]
plugin = "{}"
reads = "scripts"
grants = {{ state = true, config = {{}} }}
[admin]
listen = "${{ADMIN:-127.0.0.1:0}}"
[host]
cache = "${{CACHE}}"
grace = "2s"
"#,
        plugin.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_of_a_config_that_is_refused() {
    let mut ear = Ear::default();
    let whole = config("nats://127.0.0.1:4222", "http://127.0.0.1:9");
    let home = home(&whole);
    let token = format!("token = \"{INGRESS}\"");
    let mistakes = [
        // On the line of a secret, before and behind it.
        (token.as_str(), format!("token = [\"{INGRESS}\"]")),
        (&token, format!("tokn = \"{INGRESS}\"")),
        (&token, format!("token = \"{INGRESS}")),
        (&token, format!("token = {INGRESS}")),
        (&token, format!("token = \"{INGRESS} \"")),
        (&token, format!("token = \"{INGRESS}${{\"")),
        (&token, format!("token = \"{INGRESS}${{UNSET}}\"")),
        (&token, format!("token = \"{INGRESS}\"\ntoken = \"{INGRESS}\"")),
        (&token, format!("token = {{ value = \"{INGRESS}\" }}")),
        (&token, format!("token = \"\"\"\n{INGRESS}\n\"\"\"")),
        ("other = \"${GRANT}\"", format!("other = \"{GRANT}\", config = 5")),
        ("grants = { state = true,", "grants = { stat = true,".to_owned()),
        (
            &format!("apikey = \"{GRANT}\""),
            format!("apikey = {{ a = [\"{GRANT}\"] }}"),
        ),
        // Another kind of broker, to which they are secrets no less.
        ("url = \"nats://127.0.0.1:4222\"", "url = \"embedded:\"".to_owned()),
        (
            "url = \"nats://127.0.0.1:4222\"",
            "url = \"https://127.0.0.1\"".to_owned(),
        ),
        ("@127.0.0.1:1", "@127.0.0.1:port".to_owned()),
        ("@127.0.0.1:1", "@".to_owned()),
        ("nats://host:", "natz://host:".to_owned()),
        ("nats://host:", "nats:/host:".to_owned()),
        ("user = \"host\"", "nkey = \"SUCANARY\"".to_owned()),
        ("user = \"host\"", String::new()),
        ("${ADMIN_TOKEN:-", "${ADMIN TOKEN:-".to_owned()),
        ("${GRANT}", "${GRANT_THAT_IS_NOT_SET}".to_owned()),
    ];
    let said = home.ask_with(&environment(PASSWORD), &["check"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    ear.hear_command(&["check"], said);
    for (right, wrong) in &mistakes {
        assert!(whole.contains(right), "{right}");
        std::fs::write(home.path().join("tidegate.toml"), whole.replacen(right, wrong, 1)).unwrap();
        for args in [&["check"][..], &["run", "--json"]] {
            let said = home.ask_with(&environment(PASSWORD), args).await;
            assert_eq!(said.code, Some(2), "{wrong}: {}{}", said.stdout, said.stderr);
            ear.hear_command(args, said);
        }
    }
    ear.heard_none_of(&SECRETS);
    assert!(ear.places("tidegate.toml:").len() >= mistakes.len());
}
