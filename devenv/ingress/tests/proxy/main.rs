//! The data plane over real sockets on loopback.

mod bodies;
mod changes;
mod failures;
mod forwarding;
mod hold;
mod split;
mod support;
mod upgrades;
