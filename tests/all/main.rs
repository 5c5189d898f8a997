//! Everything that is tested through the host's public face, in one binary.

mod emitting;
mod limits;
mod loading;
mod reuse;
mod state;
