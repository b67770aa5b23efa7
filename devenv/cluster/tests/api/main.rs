//! The API as its clients see it: plain HTTP, kube-rs, and real kubectl.

mod clients;
mod http;
mod kubectl;
mod support;
