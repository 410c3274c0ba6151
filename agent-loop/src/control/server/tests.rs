//! The server as clients find it.
