//! The same system started by hand: engine and services as plain processes on a
//! prepared data directory.

use crate::Failure;
use crate::project::SERVICES;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a port: short against what is measured.
const LOOK: Duration = Duration::from_millis(1);

/// What the database wants to be told.
pub struct Credentials {
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Credentials {
    /// Reads `mysql://user:password@host:port/database`.
    pub fn of_url(url: &str) -> Result<Self, Failure> {
        let parts = || {
            let rest = url.strip_prefix("mysql://")?;
            let (login, rest) = rest.rsplit_once('@')?;
            let (user, password) = login.split_once(':')?;
            let database = rest.split_once('/')?.1.split('?').next()?;
            Some(Self {
                user: plain(user),
                password: plain(password),
                database: database.to_owned(),
            })
        };
        parts().ok_or_else(|| "`devenv url database` is no mysql:// URL with a login".into())
    }
}

fn plain(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// Starts everything and answers how long it took until each part answered; stops
/// it again. `engine` is the command line with which devenv runs the engine, so
/// that both run it with the same settings.
pub fn start(
    project: &Path,
    engine: &[String],
    data: &Path,
    credentials: &Credentials,
) -> Result<Duration, Failure> {
    let database = free_port()?;
    let socket = data.with_extension("sock");
    let mut command = Command::new(engine.first().ok_or("the engine has no command line")?);
    command
        .args(engine.iter().skip(1).filter(|word| is_setting(word)))
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!(
            "--pid-file={}",
            data.with_extension("pid").display()
        ))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--port={database}"));
    if nix::unistd::geteuid().is_root() {
        command.arg("--user=root");
    }
    let mut running = Running(vec![]);
    let start = Instant::now();
    running.spawn(&mut command)?;
    wait(database, |stream| {
        // The server speaks first: its greeting says that it is ready.
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).is_ok()
    })?;
    let mut ports = Vec::new();
    for (service, path) in SERVICES {
        let port = free_port()?;
        let mut command = Command::new(project.join("bin").join(service));
        command
            .current_dir(project)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORT", port.to_string())
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", database.to_string())
            .env("DB_USER", &credentials.user)
            .env("DB_PASSWORD", &credentials.password)
            .env("DB_NAME", &credentials.database)
            .env("API_NAME", service)
            .env("LOG_LEVEL", "info")
            .env("STATIC_DIR", project.join("services/frontend/web/dist"));
        running.spawn(&mut command)?;
        ports.push((port, *path));
    }
    for (port, path) in ports {
        wait(port, |stream| {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
            let mut answer = [0; 12];
            stream.write_all(request.as_bytes()).is_ok()
                && stream.read_exact(&mut answer).is_ok()
                && &answer == b"HTTP/1.1 200"
        })?;
    }
    Ok(start.elapsed())
}

/// Whether a word of devenv's command line for the engine is a setting; its paths
/// and addresses are the pod's.
fn is_setting(word: &str) -> bool {
    const OWN: &[&str] = &[
        "--datadir",
        "--socket",
        "--pid-file",
        "--bind-address",
        "--port",
        "--user",
        "--init-file",
    ];
    !OWN.iter().any(|own| {
        word.strip_prefix(own)
            .is_some_and(|rest| rest.starts_with('='))
    })
}

/// Processes that are stopped when this goes away, the last started first.
struct Running(Vec<Child>);

impl Running {
    fn spawn(&mut self, command: &mut Command) -> Result<(), Failure> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        self.0.push(child);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;
        for mut child in self.0.drain(..).rev() {
            // The engine is asked, so that the next start finds a clean directory.
            if let Ok(pid) = i32::try_from(child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Connects again and again until the answer is right.
fn wait(port: u16, mut right: impl FnMut(&mut TcpStream) -> bool) -> Result<(), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            if right(&mut stream) {
                return Ok(());
            }
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("nothing answered rightly on {address} within {LIMIT:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_out_of_the_url_as_they_went_in() {
        let url = "mysql://telemetry:p%40s%2Fs@127.0.0.1:3307/telemetry";
        let credentials = Credentials::of_url(url).unwrap();
        assert_eq!(credentials.user, "telemetry");
        assert_eq!(credentials.password, "p@s/s");
        assert_eq!(credentials.database, "telemetry");
        assert!(Credentials::of_url("http://x/").is_err());
    }

    #[test]
    fn settings_are_told_from_the_pods_own_paths() {
        assert!(is_setting("--innodb-buffer-pool-size=64M"));
        assert!(is_setting("--skip-name-resolve"));
        assert!(is_setting("--port-open-timeout=3"));
        assert!(!is_setting("--port=3306"));
        assert!(!is_setting("--datadir=/x"));
    }

    #[test]
    fn waiting_needs_the_right_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 503", "HTTP/1.1 200"] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut tries = 0;
        wait(port, |stream| {
            tries += 1;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200"
        })
        .unwrap();
        assert_eq!(tries, 2);
        server.join().unwrap();
    }
}
