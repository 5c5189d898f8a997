//! HTTP: an ingress that takes events, a webhook that is written to.
