//! A service's program on its own: its defaults, its complaints, and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::{TestDatabase, free_port};

const RECORD: &str = r#"{"total_ram":8000,"ram_libre":4000,"uso_ram":4000,"porcentaje_ram":50,
    "porcentaje_cpu_uso":1.5,"porcentaje_cpu_libre":98.5,"procesos_corriendo":1,"total_procesos":2,
    "procesos_durmiendo":1,"procesos_zombie":0,"procesos_parados":0,"hora":"2025-03-01 12:30:59"}"#;

/// A program of the write side.
#[derive(Debug, Clone, Copy)]
pub struct WriteProgram {
    /// Where it lies.
    pub path: &'static str,
    /// What it stamps rows with unless told otherwise.
    pub name: &'static str,
    /// Where it listens unless told otherwise.
    pub port: u16,
}

impl WriteProgram {
    fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        command.env_clear();
        command
    }

    /// Asserts that it tells all that is wrong with its environment.
    ///
    /// # Panics
    /// When it does not.
    pub fn tells_a_bad_environment_whole(&self) {
        let output = self.command().env("PORT", "0").output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let Self { name, port, .. } = self;
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!(
                "{name}: the environment can't be used:\n  \
                 DB_USER is not set; it comes from the Secret cloudsql-credentials\n  \
                 DB_PASSWORD is not set; it comes from the Secret cloudsql-credentials\n  \
                 PORT is `0`; expected a whole number from 1 to 65535 (default {port})\n"
            )
        );
    }

    /// Asserts that it stamps rows with its name, and ends in order on SIGTERM.
    ///
    /// # Panics
    /// When it does not.
    pub async fn stamps_rows_and_ends_on_sigterm(&self) {
        // The schema has the name that it looks for unless told otherwise.
        let Some(database) = TestDatabase::alone().await else {
            return;
        };
        let db = database.config("unused").database;
        let port = free_port();
        let mut child = self
            .command()
            .env("DB_HOST", &db.host)
            .env("DB_PORT", db.port.to_string())
            .env("DB_USER", &db.user)
            .env("DB_PASSWORD", db.password.reveal())
            .env("PORT", port.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was asked for"));
        let mut line = String::new();
        log.read_line(&mut line).expect("a line");
        assert!(line.contains("listening"), "{line}");

        let reply = post(port).expect("it answers");
        assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
        let end = format!(r#""api":"{}"}}"#, self.name);
        assert!(reply.ends_with(&end), "{reply}");

        let pid = child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.expect("kill runs").success());
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("the log's end");
        assert!(child.wait().expect("it ends").success(), "{rest}");
        assert!(
            rest.contains("stopping") && !rest.contains("WARN"),
            "{rest}"
        );
        assert!(!rest.contains(db.password.reveal()), "{rest}");
        assert_eq!(database.rows().await, 1);
    }
}

fn post(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{RECORD}",
        RECORD.len()
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}
