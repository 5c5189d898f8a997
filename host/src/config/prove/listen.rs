//! Proves the listeners: `[admin]` and `[ingress]`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Directory, KIB, MIB, Prover, count, given, whole, words};
use crate::config::file;
use crate::config::problem::Code;
use crate::config::read::At;
use crate::config::sheet::Span;
use crate::plan::{self, Secret};

impl Prover<'_, '_> {
    pub(super) fn admin(&mut self, at: Option<&At<file::Admin>>) -> Option<plan::Admin> {
        let none = file::Admin::default();
        let admin = match at {
            Some(at) => at.value.as_ref()?,
            None => &none,
        };
        let listen = match given(&admin.listen) {
            Some((text, span)) => self.listen(text, span, admin.token.is_some())?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
        };
        let token = self.token(&admin.token);
        Some(plan::Admin { listen, token })
    }

    pub(super) fn ingress(
        &mut self,
        at: Option<&At<file::Ingress>>,
        streams: &Directory<plan::Stream>,
    ) -> Option<plan::Ingress> {
        let at = at?;
        let ingress = at.value.as_ref()?;
        let listen = self
            .required(&ingress.listen, "listen", &at.span)
            .and_then(|(text, span)| self.listen(text, span, ingress.token.is_some()));
        let body_max = self.bounded(&ingress.body_max, "body_max", MIB, KIB..=64 * MIB);
        let concurrency = self.bounded(&ingress.concurrency, "concurrency", 256, 1..=65_536);
        let (routes, _) = self.required(&ingress.routes, "routes", &at.span)?;
        let mut proven = BTreeMap::new();
        for (path, stream) in &routes.0 {
            let route = words::route(&path.text)
                .map_err(|message| {
                    self.sheet.error(Code::BadPlace, &path.span, message);
                })
                .ok();
            if let Some((route, stream)) = route.zip(self.written(stream, streams)) {
                proven.insert(route, stream);
            }
        }
        Some(plan::Ingress {
            listen: listen?,
            token: self.token(&ingress.token),
            routes: proven,
            body_bytes_max: whole(body_max),
            concurrency: count(concurrency),
        })
    }

    fn listen(&mut self, text: &str, span: &Span, has_token: bool) -> Option<SocketAddr> {
        let Ok(address) = text.parse::<SocketAddr>() else {
            let message = format!("\"{text}\" is no address to listen on");
            self.sheet
                .error(Code::BadAddress, span, message)
                .hint("write an IP address and a port: \"127.0.0.1:7070\", \"0.0.0.0:8080\", \"[::1]:7070\"");
            return None;
        };
        if !address.ip().is_loopback() && !has_token {
            let message = format!("{address} can be reached by others and asks them for no token");
            self.sheet
                .error(Code::TokenNeeded, span, message)
                .hint("add token = \"${TIDEGATE_TOKEN}\", or listen on 127.0.0.1");
        }
        Some(address)
    }

    /// A bearer token. It must not be empty: an unset variable with an empty default would open the door. Nor can it have white space: no
    /// client can send it so, and one that comes with the line break of the file it is kept in would lock everybody out.
    pub(super) fn token(&mut self, field: &Option<At<Secret>>) -> Option<Secret> {
        let (secret, span) = given(field)?;
        if secret.reveal().is_empty() {
            self.sheet.error(Code::BadValue, span, "the secret is empty");
        } else if secret.reveal().contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.sheet
                .error(
                    Code::BadValue,
                    span,
                    "the secret has white space or a control character in it",
                )
                .hint("most often it is the line break at the end of the file that it was read from: leave it out");
        }
        Some(secret.clone())
    }
}
