//! Addresses and names of the cluster's network that have one meaning for ever.

use std::net::{Ipv4Addr, SocketAddrV4};

use devenv_sandbox::GATEWAY;

/// The cluster's DNS server.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// ClusterIP of `kubernetes.default`, the API server: the first of the Service range.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Where the API server listens in the cluster, behind [`API_SERVICE`].
pub const API_IN_CLUSTER: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 6443);

/// What this machine has on its loopback, seen from pods. Link-local and never routed, so that no
/// other machine's address is lost; podman gives its containers the same one.
pub const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// Names of [`HOST`]: devenv's own, and the one that programs made for Docker Desktop use.
pub const HOST_NAMES: [&str; 2] = ["host.devenv.internal.", "host.docker.internal."];
