//! Everything that is tested through the host's public face, in one binary.

mod limits;
