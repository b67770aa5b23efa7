//! Packets as text: Engine.IO's type, Socket.IO's type, and JSON.

use serde_json::Value;

use super::{Answer, Event, SocketError};

/// What a server says.
#[derive(Debug)]
pub(super) enum Packet {
    /// It wants to know whether the client is there.
    Ping,
    /// It closes the transport.
    Closed,
    /// It throws the client out of the namespace.
    Disconnected,
    /// It lets the client into the namespace, or says why not.
    Joined(Result<(), String>),
    /// An event.
    Event(Event),
    /// An acknowledgement.
    Answer {
        /// As this client counted.
        id: u64,
        /// What came.
        answer: Answer,
    },
    /// Nothing that this client has to do with: a pong, another namespace.
    Nothing,
}

/// Of a server's packet.
///
/// # Errors
/// What it is when it is none; the connection is of no use then.
pub(super) fn parse(text: &str) -> Result<Packet, String> {
    let wrong = |why: &str| {
        let start: String = text.chars().take(80).collect();
        format!("the server sent {start:?}, which is {why}")
    };
    let Some((kind, rest)) = split_type(text) else {
        return Err(wrong("no Engine.IO packet"));
    };
    match kind {
        '1' => return Ok(Packet::Closed),
        '2' => return Ok(Packet::Ping),
        '3' | '5' | '6' => return Ok(Packet::Nothing),
        '4' => {}
        '0' => return Err(wrong("a second handshake")),
        _ => return Err(wrong("no Engine.IO packet")),
    }
    let Some((kind, mut rest)) = split_type(rest) else {
        return Err(wrong("no Socket.IO packet"));
    };
    let binary = matches!(kind, '5' | '6');
    if binary {
        let attachments;
        (attachments, rest) = digits(rest);
        rest = match (attachments, rest.strip_prefix('-')) {
            (Some(_), Some(rest)) => rest,
            _ => return Err(wrong("binary without a count of attachments")),
        };
    }
    if rest.starts_with('/') {
        let (namespace, behind) = rest.split_once(',').unwrap_or((rest, ""));
        if namespace != "/" {
            return Ok(Packet::Nothing);
        }
        rest = behind;
    }
    let arguments = |json: &str| match serde_json::from_str(json) {
        Ok(Value::Array(arguments)) => Ok(arguments),
        Ok(_) => Err(wrong("no array")),
        Err(e) => Err(wrong(&format!("no JSON: {e}"))),
    };
    match kind {
        // Only version 3 of the protocol confirms without a session.
        '0' if rest.is_empty() => Err(wrong("of a protocol before Socket.IO 5")),
        '0' => Ok(Packet::Joined(Ok(()))),
        '1' => Ok(Packet::Disconnected),
        '2' | '5' => {
            // A server that wants an acknowledgement gets none, as from a page that has
            // no callback for it.
            let (_, json) = digits(rest);
            let mut all = arguments(json)?.into_iter();
            let Some(Value::String(name)) = all.next() else {
                return Err(wrong("an event without a name"));
            };
            Ok(Packet::Event(Event {
                name,
                arguments: all.collect(),
                binary,
            }))
        }
        '3' | '6' => {
            let (Some(id), json) = digits(rest) else {
                return Err(wrong("an acknowledgement without a number"));
            };
            let arguments = arguments(json)?;
            let answer = Answer { arguments, binary };
            Ok(Packet::Answer { id, answer })
        }
        '4' => {
            let said = serde_json::from_str::<Value>(rest).unwrap_or(Value::Null);
            let message = match said.get("message").and_then(Value::as_str) {
                Some(message) => message.to_owned(),
                None => rest.to_owned(),
            };
            Ok(Packet::Joined(Err(message)))
        }
        _ => Err(wrong("no Socket.IO packet")),
    }
}

/// Of an event of this client.
///
/// # Errors
/// A name that the protocol keeps to itself.
pub(super) fn event(
    name: &str,
    arguments: &[Value],
    id: Option<u64>,
) -> Result<String, SocketError> {
    const RESERVED: [&str; 6] = [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ];
    let unsendable = |why: String| SocketError::Unsendable {
        what: name.to_owned(),
        why,
    };
    if RESERVED.contains(&name) {
        return Err(unsendable(
            "the protocol keeps this name to itself".to_owned(),
        ));
    }
    let all: Vec<_> = std::iter::once(&Value::from(name))
        .chain(arguments)
        .cloned()
        .collect();
    let json = serde_json::to_string(&all).map_err(|e| unsendable(e.to_string()))?;
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    Ok(format!("42{id}{json}"))
}

/// The type is one character.
fn split_type(text: &str) -> Option<(char, &str)> {
    let kind = text.chars().next()?;
    Some((kind, &text[kind.len_utf8()..]))
}

/// A number at the start, and what follows. One that is too large is none.
fn digits(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (text[..end].parse().ok(), &text[end..])
}
