//! Route table, weighted split and HTTP data plane; knows no cluster.
//!
//! Kubernetes objects go in as plain data ([`compile`]), requests go through
//! ([`Proxy`]). What `nginx.ingress.kubernetes.io` annotations mean is taken
//! from ingress-nginx v1.15.1; `PARITY.md` beside this crate says point by
//! point where we do the same, where we differ on purpose, and what is warned
//! about because it is not done.
//!
//! The way of a request: accept → [`Table::route`] (host, then path) →
//! [`CanaryPolicy::decide`] and [`Splitter`] (which service) → round robin
//! (which endpoint; while there is none but one is on the way, the request is
//! held) → forward, streamed both ways.
//!
//! Three layers, each testable without the next:
//! * `compile`: objects → an immutable [`Table`] and warnings;
//! * `table`: pure decisions about one request;
//! * `proxy`: sockets, one single-threaded runtime per thread.

#![warn(missing_docs)]

mod compile;
mod proxy;
mod table;

pub use compile::{Compiled, Inputs, Warning, compile};
pub use proxy::{
    Connector, Direct, HoldLimits, Proxy, ProxyError, ProxyOptions, ServiceStats, Stats,
};
pub use table::{
    CanaryPolicy, Decision, HeaderMatch, Location, Route, Settings, Share, Splitter, Table,
    Upstream, UpstreamId, UpstreamKey, normalize,
};
