//! The service, put together once, in order of need.
