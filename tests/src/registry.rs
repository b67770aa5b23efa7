//! A registry of images on loopback, which the engine pulls from as from any other.

use crate::containers::docker;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// Debian's `docker-registry`, with a folder of its own; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Registry {
    /// Nothing, said, where there is no such program.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        let Some(program) = crate::find_tool("docker-registry") else {
            crate::skip("no docker-registry; see `cargo xtask needs`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = port.local_addr().expect("it is bound");
        drop(port);
        let config = folder.path().join("config.yml");
        let kept = folder.path().join("kept");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: '{address}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            kept.display()
        );
        fs::write(&config, text).expect("a file in the folder");
        let log = fs::File::create(folder.path().join("log")).expect("a file in the folder");
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn()
            .expect("the registry starts");
        let registry = Self {
            child,
            folder,
            address,
        };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(registry.folder.path().join("log"));
            assert!(Instant::now() < deadline, "{address}: {log:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// Brings an image of the engine there, as `repository` with a tag, and takes it from the
    /// engine; returns its name with its digest.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn take(&self, image: &str, repository: &str) -> String {
        let tag = format!("{}/{repository}:1", self.address);
        let run = |words: &[&str]| {
            docker(words).unwrap_or_else(|e| panic!("docker {}: {e}", words.join(" ")))
        };
        run(&["tag", image, &tag]);
        run(&["push", "--quiet", &tag]);
        let format = "{{index .RepoDigests 0}}";
        let name = run(&["image", "inspect", "--format", format, &tag]);
        let (_, digest) = name.trim().split_once('@').expect("NAME@DIGEST");
        let name = format!("{tag}@{digest}");
        run(&["image", "rm", "--no-prune", image, &tag]);
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nothing is done about one that has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
