//! The program itself: its defaults, its complaints, and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use telemetry::testing::TestDatabase;

const RECORD: &str = r#"{"total_ram":8000,"ram_libre":4000,"uso_ram":4000,"porcentaje_ram":50,
    "porcentaje_cpu_uso":1.5,"porcentaje_cpu_libre":98.5,"procesos_corriendo":1,"total_procesos":2,
    "procesos_durmiendo":1,"procesos_zombie":0,"procesos_parados":0,"hora":"2025-03-01 12:30:59"}"#;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api2"));
    command.env_clear();
    command
}

#[test]
fn a_bad_environment_is_told_whole() {
    let output = program().env("PORT", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "api2: the environment can't be used:\n  \
         DB_USER is not set; it comes from the Secret cloudsql-credentials\n  \
         DB_PASSWORD is not set; it comes from the Secret cloudsql-credentials\n  \
         PORT is `0`; expected a whole number from 1 to 65535 (default 3000)\n"
    );
}

#[tokio::test]
async fn it_stamps_rows_with_its_name_and_ends_on_sigterm() {
    let Some(database) = TestDatabase::start().await else {
        return;
    };
    let db = database.config("unused").database;
    let port = telemetry::testing::free_port();
    let mut child = program()
        .env("DB_HOST", &db.host)
        .env("DB_PORT", db.port.to_string())
        .env("DB_USER", &db.user)
        .env("DB_PASSWORD", db.password.reveal())
        .env("PORT", port.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");

    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "POST /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{RECORD}",
        RECORD.len()
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    assert!(reply.ends_with(r#""api":"api2"}"#), "{reply}");

    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(
        rest.contains("stopping") && !rest.contains("WARN"),
        "{rest}"
    );
    assert!(!rest.contains("a test's secret"), "{rest}");
    assert_eq!(database.rows().await, 1);
}
