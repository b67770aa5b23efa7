//! Pods without containers: the process tree under the supervisor.
//!
//! ```text
//! supervisor            the caller, in the host's namespaces
//! └─ devenv netd        janitor: waits for the supervisor's hang-up, then kills what is below
//!    └─ cluster-init    PID 1 of the cluster's PID namespace, host network; runs builds
//!       ├─ builds       host files and network, each in a session of its own
//!       └─ cluster-net  the cluster's network namespace: bridge, sockets, pods
//!          └─ pod-init  PID 1 of a pod, with its network, IPC, host name and PID namespace
//!             └─ containers, each with its own mount namespace and root
//! ```
//!
//! Every role is this same program, re-executed through `/proc/self/exe`, so
//! [`run_role_if_asked`] must be the first thing that `main` calls. Requests
//! and file descriptors travel over `SOCK_SEQPACKET` pairs. When the
//! supervisor dies in whatever way, the kernel closes its ends and takes the
//! whole tree down: a killed PID 1 takes its PID namespace along, and with the
//! last process go the mounts, links and addresses.
//!
//! Started as root the tree needs no user namespace and containers switch to
//! their user. Otherwise everything lives in a user namespace that knows only
//! the caller, and each container appears as the user it asks for while being
//! the caller for the rest of the machine.
//!
//! A pod may also be made by others, such as a Docker Engine: [`Door`] gives it its
//! place in the cluster's network.
//!
//! Where namespaces are forbidden, [`Plain`] keeps the promise that nothing
//! outlives the supervisor, without the rooms.

#![warn(missing_docs)]

mod ask;
mod cgroup;
mod check;
mod cluster_init;
mod container;
mod door;
mod error;
mod forbidden;
mod handle;
mod host_child;
mod host_children;
mod janitor;
mod launch;
mod memory;
mod netlink;
mod network;
mod pause;
mod plain;
mod pod;
mod pod_init;
mod privileges;
mod readonly;
mod reaper;
mod redirect;
mod roles;
mod rootfs;
mod spec;
mod usage;
mod wire;

pub use door::{Door, Joined, PAUSE};
pub use error::SandboxError;
pub use handle::{Netd, NetdOptions};
pub use host_child::HostChild;
pub use network::{GATEWAY, POD_PREFIX, SERVICE_RANGE};
pub use plain::{HeldEvent, Holder, Plain};
pub use pod::{Container, Pod};
pub use roles::run_role_if_asked;
pub use spec::{
    Access, Bind, ContainerSpec, Exit, FileMount, HostProcess, Limits, PodEvent, PodSpec, Tmpfs,
};
pub use usage::{Meter, Usage};
