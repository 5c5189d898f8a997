//! Every way to show who we are, on servers that ask; and what is said when it is wrong.

use std::path::Path;
use std::time::{Duration, SystemTime};

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use serde_json::{Value, json};

use tidegate::broker::suite::in_time;
use tidegate::broker::{self, Error};
use tidegate::clock::Clock;
use tidegate::plan::{NatsCredentials as Credentials, Secret, Tls};
use tidegate_tests::servers;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn password(password: &str) -> Credentials {
    Credentials::Password {
        user: "host".to_owned(),
        password: secret(password),
    }
}

/// Connects and asks JetStream something.
async fn open(url: &str, credentials: Credentials, tls: Option<Tls>) -> Result<(), Error> {
    let plan = super::broker_at(url, credentials, tls);
    let broker = broker::nats::connect(&plan, Clock::system()).await?;
    broker.check().await
}

async fn is_let_in(config: &str, credentials: Credentials) {
    let server = servers::Nats::with_config(config);
    in_time("connecting", async {
        open(server.url(), credentials, None).await.unwrap();
        is_turned_away(server.url(), Credentials::None, None, "check the credentials").await;
    })
    .await;
}

/// A refusal is no matter of trying again, says what to do, and no secret.
async fn is_turned_away(url: &str, credentials: Credentials, tls: Option<Tls>, advice: &str) {
    let error = open(url, credentials, tls).await.unwrap_err();
    assert!(matches!(error, Error::Misconfigured { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(advice), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn user_and_password() {
    is_let_in(
        "authorization { user: host, password: opensesame }",
        password("opensesame"),
    )
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_a_matter_of_the_config() {
    let server = servers::Nats::with_config("authorization { user: host, password: opensesame }");
    is_turned_away(server.url(), password("hunter2"), None, "check the credentials").await;
}

#[tokio::test]
async fn a_token() {
    is_let_in(
        "authorization { token: opensesame }",
        Credentials::Token(secret("opensesame")),
    )
    .await;
}

#[tokio::test]
async fn an_nkey() {
    let user = KeyPair::new_user();
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
    is_let_in(&config, Credentials::Nkey(secret(&user.seed().unwrap()))).await;
}

#[tokio::test]
async fn a_credentials_file() {
    let (operator, system, account, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let no_streams = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        system.public_key(),
        jwt(
            &operator,
            &system,
            json!({ "type": "account", "version": 2, "limits": no_streams })
        ),
        account.public_key(),
        jwt(
            &operator,
            &account,
            json!({ "type": "account", "version": 2, "limits": limits })
        ),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.creds");
    let unlimited = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, unlimited),
        user.seed().unwrap(),
    );
    std::fs::write(&file, text).unwrap();
    is_let_in(&config, Credentials::File(file)).await;
}

#[tokio::test]
async fn a_credentials_file_that_is_absent_is_named() {
    let file = Path::new("/nowhere/host.creds").to_owned();
    is_turned_away(
        "nats://127.0.0.1:1",
        Credentials::File(file),
        None,
        "/nowhere/host.creds",
    )
    .await;
}

#[tokio::test]
async fn tls_with_a_ca_and_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::in_folder(folder.path(), "ca");
    let server = servers::Nats::with_config(&authority.server_config());
    let (ca, identity) = (authority.certificate(), authority.issue("client"));
    let tls = Tls {
        ca: Some(ca.clone()),
        identity: Some(identity),
    };
    let other = Authority::in_folder(folder.path(), "other");
    let distrustful = Tls {
        ca: Some(other.certificate()),
        ..tls.clone()
    };
    in_time("connecting", async {
        open(server.url(), Credentials::None, Some(tls)).await.unwrap();
        is_turned_away(
            server.url(),
            Credentials::None,
            Some(distrustful),
            "check the tls files",
        )
        .await;
        let nobody = Tls {
            ca: Some(ca),
            identity: None,
        };
        open(server.url(), Credentials::None, Some(nobody)).await.unwrap_err();
    })
    .await;
}

/// A JWT as NATS has them: claims about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": subject.public_key(), "iat": now, "iss": issuer.public_key(), "name": "test", "sub": subject.public_key(), "nats": nats,
    });
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", encode(&signature))
}

/// A certificate authority, with its files in a folder.
struct Authority<'a> {
    folder: &'a Path,
    name: &'static str,
    issuer: CertifiedIssuer<'static, rcgen::KeyPair>,
}

type File = std::path::PathBuf;

impl<'a> Authority<'a> {
    fn in_folder(folder: &'a Path, name: &'static str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join(name), issuer.pem()).unwrap();
        Self { folder, name, issuer }
    }

    fn certificate(&self) -> File {
        self.folder.join(self.name)
    }

    /// Certificate and key for this machine.
    fn issue(&self, name: &str) -> (File, File) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind| self.folder.join(format!("{name}.{kind}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("pem"), file("key"))
    }

    /// A server that shows a certificate and wants one.
    fn server_config(&self) -> String {
        let (certificate, key) = self.issue("server");
        format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}, verify: true }}",
            self.certificate()
        )
    }
}
