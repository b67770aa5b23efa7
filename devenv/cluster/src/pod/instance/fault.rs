//! What a pod is to suffer, from its annotation `devenv.dev/fault`: a JSON array such as
//! `[{"kind":"pause"},{"kind":"cut","service":"cloudsql"}]`. Without it, and when the pod
//! ends, all is well again.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::{EventType, Instance, Life, Slot};
use crate::controllers::runtime::Key;
use crate::net::fault::Effect;

/// The annotation.
pub const ANNOTATION: &str = "devenv.dev/fault";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Fault {
    /// Its processes are stopped (SIGSTOP): it answers nothing and closes nothing.
    Pause {},
    /// Nothing gets through between it and a Service.
    Cut {
        /// A name in the pod's namespace, or `namespace/name`.
        service: String,
    },
    /// What it sends to a Service takes so much longer.
    Delay { service: String, millis: u64 },
}

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Imposed {
    text: String,
    paused: bool,
    at: Option<Ipv4Addr>,
}

/// What an annotation asks for: whether to pause, and what happens to traffic.
fn read(text: &str, namespace: &str) -> Result<(bool, HashMap<Key, Effect>), serde_json::Error> {
    let mut paused = false;
    let mut effects = HashMap::new();
    let faults: Vec<Fault> = match text {
        "" => Vec::new(),
        text => serde_json::from_str(text)?,
    };
    let key = |service: &str| match service.split_once('/') {
        Some((namespace, name)) => Key::new(namespace, name),
        None => Key::new(namespace, service),
    };
    for fault in faults {
        match fault {
            Fault::Pause {} => paused = true,
            Fault::Cut { service } => {
                effects.insert(key(&service), Effect::Cut);
            }
            // What is cut is not late.
            Fault::Delay { service, millis } => {
                let delay = Effect::Delay(Duration::from_millis(millis));
                effects.entry(key(&service)).or_insert(delay);
            }
        }
    }
    Ok((paused, effects))
}

impl Instance {
    /// Makes what the annotation says so.
    pub(super) async fn impose(&mut self) {
        let alive = matches!(self.life, Life::Alive);
        let annotations = &self.object.value()["metadata"]["annotations"];
        let text = annotations[ANNOTATION].as_str().filter(|_| alive);
        let text = text.unwrap_or_default().to_owned();
        let at = self.ip.as_ref().map(|ip| ip.addr());
        if text == self.imposed.text && (at == self.imposed.at || text.is_empty()) {
            return;
        }
        let (pause, effects) = match read(&text, self.object.namespace()) {
            Ok(faults) => faults,
            Err(e) => {
                let message = format!(
                    "{ANNOTATION}: {e}; expected [{{\"kind\":\"pause\"}}, \
                     {{\"kind\":\"cut\",\"service\":\"NAME\"}}, \
                     {{\"kind\":\"delay\",\"service\":\"NAME\",\"millis\":200}}]"
                );
                self.tell(EventType::Warning, "InvalidAnnotation", &message);
                (false, HashMap::new())
            }
        };
        if let Some(at) = at {
            self.shared.faults.set(at, effects);
        }
        if pause != self.imposed.paused {
            let signal = if pause {
                Signal::SIGSTOP
            } else {
                Signal::SIGCONT
            };
            self.signal_all(signal).await;
        }
        self.imposed = Imposed {
            text,
            paused: pause,
            at,
        };
    }

    async fn signal_all(&self, signal: Signal) {
        let Some(sandbox) = &self.sandbox else {
            return;
        };
        for slot in self.slots.iter().filter(|s| Slot::is_running(s)) {
            if let Err(e) = sandbox.signal(slot.name(), signal as i32).await {
                // It ended meanwhile.
                tracing::debug!(error = %e.full(), container = slot.name(), "no {signal}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations() {
        let text = r#"[{"kind":"pause"},{"kind":"delay","service":"b/c","millis":5},{"kind":"cut","service":"db"}]"#;
        let (paused, effects) = read(text, "a").unwrap();
        assert!(paused);
        let delay = Effect::Delay(Duration::from_millis(5));
        let wanted = [
            (Key::new("a", "db"), Effect::Cut),
            (Key::new("b", "c"), delay),
        ];
        assert_eq!(effects, wanted.into());
        assert_eq!(read("", "a").unwrap(), (false, HashMap::new()));
        for bad in ["x", "{}", r#"[{"kind":"melt"}]"#, r#"[{"kind":"cut"}]"#] {
            assert!(read(bad, "a").is_err(), "{bad}");
        }
    }
}
