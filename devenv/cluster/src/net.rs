//! The cluster's network as the supervisor plays it: sockets into it, ClusterIPs, DNS.

pub mod balance;
pub mod clusterip;
pub mod connect;
pub mod datagram;
pub mod dial;
pub mod dns;
pub mod egress;
pub mod endpoints;
pub mod fault;
pub mod forward;
pub mod front;
pub mod hostports;
pub mod loopback;
pub mod resolv;
pub mod routed;
pub mod well_known;
