//! netd and pod-init: namespaces, netlink, sockets handed over.

#![warn(missing_docs)]
