//! Route table, weighted split and HTTP data plane; knows no cluster.

#![warn(missing_docs)]
