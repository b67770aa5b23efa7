//! A real registry (Debian's docker-registry), as an engine and the nodes of its clusters reach
//! it under one name.

use crate::containers::{BASE, docker};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

const PROGRAM: &str = "/usr/bin/docker-registry";
const CONFIG: &str = "version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ':5000'}
";

/// A container; dropping it removes it.
#[derive(Debug)]
pub struct EngineRegistry {
    name: String,
    port: u16,
    _config: tempfile::TempDir,
}

impl EngineRegistry {
    /// Starts one. Nothing, said, where there is none to start.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn start(name: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            crate::skip(&format!("no {PROGRAM}; see `cargo xtask needs`"));
            return None;
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let config = tempfile::tempdir().expect("a folder");
        std::fs::write(config.path().join("config.yml"), CONFIG).expect("a file");
        // What a test that was killed has left.
        let _ = docker(&["rm", "-fv", name]);
        let registry = Self {
            name: name.to_owned(),
            port,
            _config: config,
        };
        let program = format!("{PROGRAM}:/registry:ro");
        let config = format!("{}:/etc/registry:ro", registry._config.path().display());
        let published = format!("127.0.0.1:{port}:5000");
        let words = ["run", "-d", "--name", name, "--user", "0", "-p", &published];
        let mounts = ["-v", &program, "-v", &config, BASE];
        let serve = ["/registry", "serve", "/etc/registry/config.yml"];
        docker(&[&words[..], &mounts, &serve].concat()).expect("the registry starts");
        Some(registry)
    }

    /// What images of it are called: `HOST:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What a kind cluster's configuration needs so that its nodes find it by that name.
    pub fn containerd_patch(&self) -> String {
        let (host, name) = (self.host(), &self.name);
        format!(
            "containerdConfigPatches:\n  - |-\n    \
             [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"{host}\"]\n      \
             endpoint = [\"http://{name}:5000\"]\n"
        )
    }

    /// Makes it one of a network of the engine.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn join(&self, network: &str) {
        docker(&["network", "connect", network, &self.name]).expect("it joins");
    }

    /// Pushes an image of the engine; what it is called there.
    ///
    /// # Panics
    /// When it can't be pushed.
    pub fn push(&self, image: &str, name: &str) -> String {
        let there = format!("{}/{name}", self.host());
        docker(&["tag", image, &there]).expect("tagged");
        docker(&["push", "-q", &there]).expect("pushed");
        docker(&["rmi", &there]).expect("untagged");
        there
    }
}

impl Drop for EngineRegistry {
    fn drop(&mut self) {
        if let Err(error) = docker(&["rm", "-fv", &self.name]) {
            eprintln!("{error}");
        }
    }
}
