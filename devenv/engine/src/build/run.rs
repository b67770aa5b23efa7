//! One command: run to its end, its lines told as they come.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use devenv_platform::host::{Exit, Host, HostCommand, HostError};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::BuildError;
use crate::event::{Bus, Event};

/// How many lines of a failed command are kept for the error: what compilers say of
/// one mistake can be long, and the first one counts.
const TAIL: usize = 500;

/// Runs `command`, which people know as `text`, for the images `names`.
pub(super) async fn run(
    host: &Host,
    command: HostCommand,
    text: &str,
    names: &str,
    bus: &Bus,
) -> Result<(), BuildError> {
    let (text, names, dir) = (text.to_owned(), names.to_owned(), command.cwd.clone());
    let not_run = |source: HostError| BuildError::Start {
        images: names.clone(),
        command: text.clone(),
        dir: dir.clone(),
        source: Box::new(source),
    };
    let (mut run, [out, err]) = host.start(command).await.map_err(not_run)?;
    let tail = Mutex::default();
    let ((), (), exit) = tokio::join!(
        lines(out, &names, bus, &tail),
        lines(err, &names, bus, &tail),
        run.wait()
    );
    let status = match exit.map_err(not_run)? {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    let tail: VecDeque<String> = tail.into_inner().unwrap_or_else(PoisonError::into_inner);
    Err(BuildError::Failed {
        images: names.clone(),
        command: text.clone(),
        status,
        output: Vec::from(tail).join("\n"),
    })
}

async fn lines(
    from: impl AsyncRead + Unpin,
    source: &str,
    bus: &Bus,
    tail: &Mutex<VecDeque<String>>,
) {
    let mut reader = BufReader::new(from);
    let mut raw = Vec::new();
    loop {
        raw.clear();
        match reader.read_until(b'\n', &mut raw).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
        bus.emit(Event::Output {
            source: source.to_owned(),
            line: line.clone(),
        });
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}
