//! A proxy for one backend, to measure the data plane with.
//!
//! `bare LISTEN BACKEND THREADS [canary]`: serves until it is killed. With
//! `canary`, half of the requests go through a second upstream of the same
//! address, which is what the split costs.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};

use devenv_ingress::{Inputs, Proxy, ProxyOptions, Table, compile};
use serde::de::DeserializeOwned;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("missing {what}"));
    let listener = TcpListener::bind(next("LISTEN")?)?;
    let backend: SocketAddr = next("BACKEND")?.parse()?;
    let threads = next("THREADS")?.parse()?;
    let table = match next("canary") {
        Ok(_) => pair(backend)?,
        Err(_) => Table::single(&[backend]),
    };
    let options = ProxyOptions {
        threads,
        ..ProxyOptions::new(vec![listener])
    };
    let _proxy = Proxy::start(options, table)?;
    loop {
        std::thread::park();
    }
}

fn pair(backend: SocketAddr) -> Result<Table, Box<dyn Error>> {
    let path = |service: &str| {
        json!({"ingressClassName": "nginx", "rules": [{"http": {"paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"number": 80}}}}]}}]})
    };
    let canary = json!({
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "50",
    });
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let slice = |name: &str| {
        json!({"addressType": "IPv4",
            "metadata": {"labels": {"kubernetes.io/service-name": name}},
            "ports": [{"port": backend.port()}],
            "endpoints": [{"addresses": [backend.ip().to_string()]}]})
    };
    fn all<T: DeserializeOwned>(values: [serde_json::Value; 2]) -> serde_json::Result<Vec<T>> {
        values.into_iter().map(serde_json::from_value).collect()
    }
    let compiled = compile(&Inputs {
        ingresses: &all([
            json!({"metadata": {"name": "main"}, "spec": path("one")}),
            json!({"metadata": {"name": "canary", "annotations": canary}, "spec": path("two")}),
        ])?,
        classes: &[],
        services: &all([service("one"), service("two")])?,
        endpoint_slices: &all([slice("one"), slice("two")])?,
        coming: &[],
    });
    Ok(compiled.table)
}
