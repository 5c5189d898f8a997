//! Who may connect, how, and what is said to those who may not.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tidegate::broker::Error;
use tidegate::clock::Clock;
use tidegate::plan::{NatsCredentials, Secret, Tls};
use tidegate_tests::servers;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::broker_at;

async fn connect(url: &str, credentials: NatsCredentials, tls: Option<Tls>) -> Result<(), Error> {
    let broker = broker_at(url, credentials, tls);
    let broker = tidegate::broker::nats::connect(&broker, Clock::system()).await?;
    broker.check().await
}

/// A person must act, and is told what about.
fn assert_misconfigured(result: Result<(), Error>, words: &[&str]) {
    let error = result.expect_err("this must not connect");
    assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[tokio::test]
async fn an_old_server_is_refused_by_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (read, mut write) = socket.split();
        let info = json!({ "version": "2.9.25", "max_payload": 1024, "headers": true, "proto": 1 });
        write.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "PING" {
                write.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    });
    let result = connect(&url, NatsCredentials::None, None).await;
    assert_misconfigured(result, &["2.9.25", "2.12 or newer"]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = connect(&url, NatsCredentials::None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&url), "{error} does not say where");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let error = connect(&url, NatsCredentials::None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_password_is_needed_and_enough() {
    let server = servers::Nats::with_config("authorization { user: host, password: \"p w:@\" }");
    let password = |text: &str| NatsCredentials::Password {
        user: "host".to_owned(),
        password: Secret::new(text.to_owned()),
    };
    connect(server.url(), password("p w:@"), None).await.unwrap();
    let wrong = connect(server.url(), password("guess"), None).await;
    assert!(!format!("{wrong:?}").contains("guess"), "the password is in the error");
    assert_misconfigured(wrong, &["check the credentials"]);
    assert_misconfigured(
        connect(server.url(), NatsCredentials::None, None).await,
        &["check the credentials"],
    );
}

#[tokio::test]
async fn a_token_is_needed_and_enough() {
    let server = servers::Nats::with_config("authorization { token: open-sesame }");
    let token = |text: &str| NatsCredentials::Token(Secret::new(text.to_owned()));
    connect(server.url(), token("open-sesame"), None).await.unwrap();
    assert_misconfigured(
        connect(server.url(), token("open"), None).await,
        &["check the credentials"],
    );
}

#[tokio::test]
async fn an_nkey_is_needed_and_enough() {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", right.public_key());
    let server = servers::Nats::with_config(&config);
    let nkey = |pair: &KeyPair| NatsCredentials::Nkey(Secret::new(pair.seed().unwrap()));
    connect(server.url(), nkey(&right), None).await.unwrap();
    for bad in [
        nkey(&wrong),
        NatsCredentials::Nkey(Secret::new("SUNONSENSE".to_owned())),
    ] {
        assert_misconfigured(connect(server.url(), bad, None).await, &["check the credentials"]);
    }
}

#[tokio::test]
async fn a_credentials_file_is_needed_and_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, account, stranger) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let server = servers::Nats::with_config(&operated(&operator, &account));
    let right = credentials(folder.path(), &account);
    connect(server.url(), NatsCredentials::File(right), None).await.unwrap();

    let wrong = credentials(folder.path(), &stranger);
    assert_misconfigured(
        connect(server.url(), NatsCredentials::File(wrong), None).await,
        &["check the credentials"],
    );
    let absent = folder.path().join("absent.creds");
    assert_misconfigured(
        connect(server.url(), NatsCredentials::File(absent), None).await,
        &["absent.creds"],
    );
}

#[tokio::test]
async fn tls_is_spoken_with_a_private_authority_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificates(folder.path());
    let server = servers::Nats::with_config(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        files.server.0, files.server.1, files.authority
    ));
    let url = server.url().replace("nats://", "tls://");
    let tls = |ca: Option<&PathBuf>, identity: Option<&(PathBuf, PathBuf)>| {
        Some(Tls {
            ca: ca.cloned(),
            identity: identity.cloned(),
        })
    };
    let (ca, identity) = (Some(&files.authority), Some(&files.client));
    connect(&url, NatsCredentials::None, tls(ca, identity)).await.unwrap();

    let stranger = connect(&url, NatsCredentials::None, tls(None, identity)).await;
    assert_misconfigured(stranger, &["check the tls files"]);
    let nobody = connect(&url, NatsCredentials::None, tls(ca, None)).await;
    assert_misconfigured(nobody, &["check the tls files"]);
    let absent = folder.path().join("absent.pem");
    let absent = connect(&url, NatsCredentials::None, tls(Some(&absent), identity)).await;
    assert_misconfigured(absent, &["check the tls files"]);
}

/// A server configuration in which an operator vouches for one account.
fn operated(operator: &KeyPair, account: &KeyPair) -> String {
    let system = KeyPair::new_account();
    let all = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_system = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
    let vouch = |pair: &KeyPair, limits: Value| {
        token(
            operator,
            &pair.public_key(),
            json!({ "type": "account", "version": 2, "limits": limits }),
        )
    };
    let own = token(
        operator,
        &operator.public_key(),
        json!({ "type": "operator", "version": 2 }),
    );
    format!(
        "operator: {own}\nresolver: MEMORY\nsystem_account: {system_key}\nresolver_preload: {{ {system_key}: {system_token}, {account_key}: {account_token} }}\n",
        system_key = system.public_key(),
        system_token = vouch(&system, of_system),
        account_key = account.public_key(),
        account_token = vouch(account, all),
    )
}

/// The file that a new user of an account gets.
fn credentials(folder: &Path, account: &KeyPair) -> PathBuf {
    let user = KeyPair::new_user();
    let claims = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let token = token(account, &user.public_key(), claims);
    let seed = user.seed().unwrap();
    let file = folder.join(format!("{}.creds", user.public_key()));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A signed statement of `issuer` about `subject`.
fn token(issuer: &KeyPair, subject: &str, nats: Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({ "iss": issuer.public_key(), "sub": subject, "name": "test", "jti": subject, "iat": 1_700_000_000, "nats": nats });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Certificates {
    authority: PathBuf,
    server: (PathBuf, PathBuf),
    client: (PathBuf, PathBuf),
}

fn certificates(folder: &Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = write("ca.pem", params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    let issue = |name: &str, address: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (
            write(&format!("{name}.pem"), certificate.pem()),
            write(&format!("{name}.key"), key.serialize_pem()),
        )
    };
    Certificates {
        authority,
        server: issue("server", "127.0.0.1"),
        client: issue("client", "host.example.com"),
    }
}
