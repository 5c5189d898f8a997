//! Every test at the host's public face, in one binary.

mod brokers;
