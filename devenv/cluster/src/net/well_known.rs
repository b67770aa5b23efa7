//! Addresses and names of the cluster's network that have one meaning for ever.

use std::net::{Ipv4Addr, SocketAddrV4};

use devenv_sandbox::GATEWAY;

/// The cluster's DNS server.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// ClusterIP of `kubernetes.default`, the API server: the first of the Service range.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Where the API server listens in the cluster, behind [`API_SERVICE`].
pub const API_IN_CLUSTER: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 6443);
