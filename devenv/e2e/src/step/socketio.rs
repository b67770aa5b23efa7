//! Socket.IO sessions.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{Context, Session, StepResult};
use crate::{
    capture::Answer,
    expect::check_json,
    matcher::{shortened, shown},
    socketio::{self, SocketError},
    suite::spec::{Expect, SocketioSpec, Transport},
};

#[cfg(test)]
mod tests;

const WITHIN: Duration = Duration::from_secs(10);
/// What is shown of a payload.
const SHOWN: usize = 2000;

#[async_trait]
impl Session for socketio::Session {
    async fn close(self: Box<Self>) {
        socketio::Session::close(*self).await;
    }
}

/// Opens, uses or closes a session. `expect.json` is for the acknowledgement, or for the
/// event that is waited for: one that doesn't fit is passed over.
pub async fn run(spec: &SocketioSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let within = spec.within.map_or(WITHIN, Duration::from);
    if let Some(name) = &spec.open {
        let url = spec.url.as_ref().map_or("", |url| url.as_str());
        return open(name.as_str(), url, spec.transport, within, context).await;
    }
    let name = spec.on.as_ref().map_or("", |name| name.as_str());
    if spec.close {
        return match context.sessions.remove::<socketio::Session>(name) {
            Some(session) => {
                session.close().await;
                StepResult::default()
            }
            None => no_session(name, context),
        };
    }
    let Some(session) = context.sessions.get::<socketio::Session>(name) else {
        return no_session(name, context);
    };
    if let Some(event) = &spec.emit {
        let data = spec.data.as_slice();
        return emit(session, event.as_str(), data, spec.ack.then_some(within)).await;
    }
    if let Some(event) = &spec.event {
        return wait(session, event.as_str(), within, expect).await;
    }
    match session.disconnected(within).await {
        Ok(why) => StepResult {
            seen: Some(why),
            ..StepResult::default()
        },
        Err(_) => StepResult::failed(
            format!("session {name}"),
            format!("its end within {within:?}"),
            "still connected",
        ),
    }
}

async fn open(
    name: &str,
    url: &str,
    transport: Option<Transport>,
    within: Duration,
    context: &mut Context,
) -> StepResult {
    let transport = match transport.unwrap_or_default() {
        Transport::Websocket => socketio::Transport::WebSocket,
        Transport::Polling => socketio::Transport::Polling,
    };
    let connected = socketio::Session::connect(url, transport, within).await;
    match connected {
        Ok(session) => {
            // Who opens a session again wants the new one.
            if let Some(earlier) = context.sessions.insert(name, session) {
                earlier.close().await;
            }
            StepResult::default()
        }
        Err(error) => StepResult::failed(
            format!("session {name}"),
            format!("a connection to {url} over {transport} within {within:?}"),
            error.to_string(),
        ),
    }
}

fn no_session(name: &str, context: &Context) -> StepResult {
    let open = context.sessions.names::<socketio::Session>();
    let got = match open.as_slice() {
        [] => "none is open".to_owned(),
        open => format!("open are {}", open.join(", ")),
    };
    StepResult::failed(format!("session {name}"), "one that is open", got)
}

/// Sends an event, and waits for its acknowledgement if asked to.
async fn emit(
    session: &mut socketio::Session,
    event: &str,
    data: &[Value],
    ack: Option<Duration>,
) -> StepResult {
    let sent = match ack {
        None => session.emit(event, data).await.map(|()| None),
        Some(within) => (session.emit_with_ack(event, data, within).await).map(Some),
    };
    match sent {
        Ok(None) => StepResult::default(),
        Ok(Some(arguments)) => answered(&arguments),
        Err(error) => StepResult::failed(
            format!("emit {event}"),
            match ack {
                Some(_) => "its acknowledgement",
                None => "to be sent",
            },
            error.to_string(),
        ),
    }
}

/// Waits for an event that is as expected.
async fn wait(
    session: &mut socketio::Session,
    event: &str,
    within: Duration,
    expect: &Expect,
) -> StepResult {
    let mut last = None;
    let came = session
        .event(event, within, |event| {
            let fits = check_json(expect, Some(event.payload())).is_empty();
            if !fits {
                last = Some(event.arguments.clone());
            }
            fits
        })
        .await;
    let error = match came {
        Ok(event) => return answered(&event.arguments),
        Err(error) => error,
    };
    let expected = match expect.json.is_empty() {
        true => format!("one within {within:?}"),
        false => format!("one as expected within {within:?}"),
    };
    let failed = StepResult::failed(format!("event {event}"), expected, error.to_string());
    match last {
        // With it, what is not as expected about the last one is told as well.
        Some(last)
            if matches!(
                error,
                SocketError::Timeout { .. } | SocketError::Ended { .. }
            ) =>
        {
            StepResult {
                mismatches: failed.mismatches,
                ..answered(&last)
            }
        }
        _ => failed,
    }
}

/// `$` is the first argument, as events and acknowledgements have one as a rule.
fn answered(arguments: &[Value]) -> StepResult {
    let all: Vec<_> = arguments.iter().map(shown).collect();
    StepResult {
        seen: Some(shortened(&all.join("\n"), SHOWN)),
        answer: Answer {
            json: Some(arguments.first().cloned().unwrap_or_default()),
            ..Answer::default()
        },
        ..StepResult::default()
    }
}
