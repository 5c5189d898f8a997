//! Proves a `[broker.NAME]`: its kind, how it is reached, and who the host says it is.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{MINUTE, Prover, count, given, span_of};
use crate::config::problem::Code;
use crate::config::read::At;
use crate::config::sheet::Span;
use crate::config::{file, location};
use crate::plan::{self, BrokerKind, Name, NatsCredentials, Secret};

const NATS_PORT: u16 = 4222;

impl Prover<'_, '_> {
    pub(super) fn broker(&mut self, name: &Name, at: &At<file::Broker>) -> Option<plan::Broker> {
        let broker = at.value.as_ref()?;
        let (url, span) = self.required(&broker.url, "url", &at.span)?;
        if url.varies {
            self.varying.insert(name.clone());
        } else {
            self.broker_keys(broker, &url.text);
        }
        let scheme = url.text.split(':').next().unwrap_or_default();
        let kind = match scheme {
            "embedded" => self.embedded(name, &url.text, span)?,
            "nats" | "tls" => BrokerKind::Nats(self.nats(broker, &url.text, span)?),
            "http" | "https" => BrokerKind::Webhook(self.webhook(broker, &url.text, span)?),
            _ => return self.no_broker(scheme, &url.text, span),
        };
        Some(plan::Broker {
            name: name.clone(),
            kind,
        })
    }

    fn no_broker<T>(&mut self, scheme: &str, url: &str, span: &Span) -> Option<T> {
        let (code, message) = match scheme {
            "kafka" | "amqp" | "amqps" | "redis" | "rediss" | "sqs" | "eventbridge" | "pubsub" | "postgres"
            | "postgresql" => (Code::Unsupported, format!("this version has no {scheme}: broker")),
            _ => (Code::BadUrl, format!("\"{}\" is no broker", location::redacted(url))),
        };
        self.sheet
            .error(code, span, message)
            .hint("write embedded:, nats://HOST, tls://HOST, http://HOST or https://HOST");
        None
    }

    fn broker_keys(&mut self, broker: &file::Broker, url: &str) {
        let nats = [
            ("user", span_of(&broker.user)),
            ("password", span_of(&broker.password)),
            ("nkey", span_of(&broker.nkey)),
            ("creds", span_of(&broker.creds)),
            ("ca", span_of(&broker.ca)),
            ("cert", span_of(&broker.cert)),
            ("key", span_of(&broker.key)),
        ];
        let token = [("token", span_of(&broker.token))];
        let webhook = [
            ("timeout", span_of(&broker.timeout)),
            ("concurrency", span_of(&broker.concurrency)),
        ];
        match url.split(':').next().unwrap_or_default() {
            "embedded" => {
                for keys in [&nats[..], &token[..], &webhook[..]] {
                    self.misplaced(keys, "an embedded broker");
                }
            }
            "nats" | "tls" => self.misplaced(&webhook, "a NATS broker"),
            "http" | "https" => self.misplaced(&nats, "a webhook"),
            _ => {}
        }
    }

    fn embedded(&mut self, name: &Name, url: &str, span: &Span) -> Option<BrokerKind> {
        let path = url.strip_prefix("embedded:").unwrap_or_default();
        // Without a ledger there is nothing to compare, and that has been said.
        let ledger = self.ledger_folder.clone()?;
        let folder = self.path(path);
        if !path.is_empty() && folder != ledger {
            let message = format!(
                "broker \"{name}\" is in {}, the ledger in {}",
                folder.display(),
                ledger.display()
            );
            self.sheet.error(Code::LedgerMismatch, span, message).hint(
                "write embedded: alone, or the ledger's path: an event and what it causes are one transaction, so both live in one store",
            );
        }
        Some(BrokerKind::Embedded)
    }

    fn webhook(&mut self, broker: &file::Broker, text: &str, span: &Span) -> Option<plan::Webhook> {
        let url = self.url(text, text, span)?;
        if !url.username().is_empty() || url.password().is_some() {
            self.sheet
                .error(Code::BadUrl, span, "the url of a webhook has a user in it")
                .hint("a webhook is told who we are by `token`");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.sheet
                .error(Code::BadUrl, span, "the url of a webhook has a ? or # in it")
                .hint("a stream's path is joined onto it: put these into the stream's `path`");
        }
        Some(plan::Webhook {
            url: url.to_string(),
            token: self.token(&broker.token),
            timeout: self.bounded(
                &broker.timeout,
                "timeout",
                Duration::from_secs(30),
                Duration::from_millis(100)..=10 * MINUTE,
            ),
            concurrency: count(self.bounded(&broker.concurrency, "concurrency", 64, 1..=4_096)),
        })
    }

    fn nats(&mut self, broker: &file::Broker, text: &str, span: &Span) -> Option<plan::Nats> {
        let mut servers = Vec::new();
        let mut credentials = Vec::new();
        let mut wants_tls = false;
        for part in text.split(',') {
            // The comma may be one of a password's, and then so may be all that stands before it.
            let shown = if text.contains('@') { text } else { part.trim() };
            let url = self.nats_url(part.trim(), shown, span)?;
            wants_tls |= url.scheme() == "tls";
            let port = url.port().unwrap_or(NATS_PORT);
            let host = url.host_str().unwrap_or_default();
            servers.push(format!("{}://{host}:{port}", url.scheme()));
            credentials.extend(url_credentials(&url));
        }
        if credentials.iter().any(|other| Some(other) != credentials.first()) {
            self.sheet.error(
                Code::Conflict,
                span,
                "the servers of one broker are given different users",
            );
        }
        let from_url = credentials.into_iter().next().map(|found| (found.into(), span.clone()));
        Some(plan::Nats {
            servers,
            credentials: self.credentials(broker, from_url),
            tls: self.tls(broker, wants_tls),
        })
    }

    fn nats_url(&mut self, text: &str, shown: &str, span: &Span) -> Option<Url> {
        let url = self.url(text, shown, span)?;
        let more = !matches!(url.path(), "" | "/") || url.query().is_some();
        let message = match url.scheme() {
            "nats" | "tls" if more => "has more than a host and a port",
            "nats" | "tls" => return Some(url),
            _ => "is no NATS server",
        };
        let message = format!("\"{}\" {message}", location::redacted(shown));
        self.sheet
            .error(Code::BadUrl, span, message)
            .hint("write nats://HOST:PORT or tls://HOST:PORT, several with commas between");
        None
    }

    /// A URL; if it is none, it is shown by what is given to show.
    fn url(&mut self, text: &str, shown: &str, span: &Span) -> Option<Url> {
        let problem = match Url::parse(text) {
            Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => return Some(url),
            Ok(_) => "it names no host".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("\"{}\" is no url: {problem}", location::redacted(shown));
        self.sheet.error(Code::BadUrl, span, message);
        None
    }

    /// The one way in which the host says who it is.
    fn credentials(&mut self, broker: &file::Broker, from_url: Option<(NatsCredentials, Span)>) -> NatsCredentials {
        let mut ways: Vec<_> = from_url.into_iter().collect();
        ways.extend(self.password(broker));
        if let Some((token, span)) = given(&broker.token) {
            ways.push((NatsCredentials::Token(token.clone()), span.clone()));
        }
        ways.extend(self.nkey(broker));
        if let Some(span) = span_of(&broker.creds)
            && let Some(file) = self.file(&broker.creds)
        {
            ways.push((NatsCredentials::File(file), span));
        }
        if let [_, (_, span), ..] = ways.as_slice() {
            self.sheet
                .error(Code::Conflict, span, "the broker is told who we are in two ways")
                .hint("keep one of: a user or token in the url, user and password, token, nkey, creds");
        }
        ways.into_iter().next().map_or(NatsCredentials::None, |(way, _)| way)
    }

    fn password(&mut self, broker: &file::Broker) -> Option<(NatsCredentials, Span)> {
        let (missing, span) = match (&broker.user, &broker.password) {
            (Some(user), Some(password)) => {
                let (user, password) = (user.value.clone()?, password.value.clone()?);
                let span = span_of(&broker.user)?;
                return Some((NatsCredentials::Password { user, password }, span));
            }
            (Some(user), None) => ("password", &user.span),
            (None, Some(password)) => ("user", &password.span),
            (None, None) => return None,
        };
        let message = format!("`{missing}` is missing: user and password go together");
        self.sheet.error(Code::MissingKey, span, message);
        None
    }

    fn nkey(&mut self, broker: &file::Broker) -> Option<(NatsCredentials, Span)> {
        let (seed, span) = given(&broker.nkey)?;
        // base32 of 32 bytes, a two-byte prefix and a checksum; `SU`: the seed of a user.
        if !seed.reveal().starts_with("SU") || seed.reveal().len() != 58 {
            self.sheet
                .error(Code::BadValue, span, "that is no nkey seed of a user")
                .hint("a seed has 58 characters and begins with SU; the public key, which begins with U, stays on the server");
        }
        Some((NatsCredentials::Nkey(seed.clone()), span.clone()))
    }

    fn tls(&mut self, broker: &file::Broker, wanted: bool) -> Option<plan::Tls> {
        let ca = self.file(&broker.ca);
        let (cert, key) = (self.file(&broker.cert), self.file(&broker.key));
        let missing = match (&broker.cert, &broker.key) {
            (Some(cert), None) => Some(("key", &cert.span)),
            (None, Some(key)) => Some(("cert", &key.span)),
            _ => None,
        };
        if let Some((missing, span)) = missing {
            let message = format!("`{missing}` is missing: cert and key go together");
            self.sheet.error(Code::MissingKey, span, message);
        }
        let identity = cert.zip(key);
        (wanted || ca.is_some() || identity.is_some()).then_some(plan::Tls { ca, identity })
    }
}

/// Who a URL says we are.
#[derive(PartialEq, Eq)]
struct UrlCredentials {
    user: String,
    password: Option<String>,
}

fn url_credentials(url: &Url) -> Option<UrlCredentials> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let found = UrlCredentials {
        user: decode(url.username()),
        password: url.password().map(decode),
    };
    (!found.user.is_empty() || found.password.is_some()).then_some(found)
}

impl From<UrlCredentials> for NatsCredentials {
    fn from(found: UrlCredentials) -> Self {
        match found.password {
            Some(password) => Self::Password {
                user: found.user,
                password: Secret::new(password),
            },
            // What NATS clients make of a lone name before the @.
            None => Self::Token(Secret::new(found.user)),
        }
    }
}
