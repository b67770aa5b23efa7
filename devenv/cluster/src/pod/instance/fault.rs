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
use crate::pod::status::Outcome;
use crate::pod::volumes;

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
    /// Nothing more fits on its disk (ENOSPC): where its containers write, and its
    /// emptyDirs of medium Memory. The machine's own disk is never filled.
    FillDisk {},
}

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Imposed {
    text: String,
    paused: bool,
    full: bool,
    at: Option<Ipv4Addr>,
    /// What the pod's status says of it; `None` without the annotation.
    pub(super) outcome: Option<Outcome>,
}

/// What an annotation asks for.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    paused: bool,
    full: bool,
    /// What happens to traffic.
    effects: HashMap<Key, Effect>,
}

fn read(text: &str, namespace: &str) -> Result<Wanted, serde_json::Error> {
    let mut wanted = Wanted::default();
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
            Fault::Pause {} => wanted.paused = true,
            Fault::FillDisk {} => wanted.full = true,
            Fault::Cut { service } => {
                wanted.effects.insert(key(&service), Effect::Cut);
            }
            // What is cut is not late.
            Fault::Delay { service, millis } => {
                let delay = Effect::Delay(Duration::from_millis(millis));
                wanted.effects.entry(key(&service)).or_insert(delay);
            }
        }
    }
    Ok(wanted)
}

impl Imposed {
    /// The pod has a new sandbox, which suffers nothing yet.
    pub(super) fn begin_anew(&mut self) {
        self.at = None;
        self.full = false;
    }
}

impl Instance {
    /// Makes what the annotation says so.
    pub(super) async fn impose(&mut self) {
        let alive = matches!(self.life, Life::Alive);
        let annotations = &self.object.value()["metadata"]["annotations"];
        let text = annotations[ANNOTATION].as_str().filter(|_| alive);
        let text = text.unwrap_or_default().to_owned();
        let at = self.ip.as_ref().map(|ip| ip.addr());
        let at = at.filter(|_| self.sandbox.is_some());
        if text == self.imposed.text && (at == self.imposed.at || text.is_empty()) {
            return;
        }
        let mut outcome = (!text.is_empty()).then(|| Outcome::in_force(&text));
        let wanted = match read(&text, self.object.namespace()) {
            Ok(wanted) => wanted,
            Err(e) => {
                let message = format!(
                    "{ANNOTATION}: {e}; expected [{{\"kind\":\"pause\"}}, \
                     {{\"kind\":\"cut\",\"service\":\"NAME\"}}, \
                     {{\"kind\":\"delay\",\"service\":\"NAME\",\"millis\":200}}, \
                     {{\"kind\":\"fill-disk\"}}]"
                );
                self.tell(EventType::Warning, "InvalidAnnotation", &message);
                outcome = Some(Outcome::refused(&text, "InvalidAnnotation", &message));
                Wanted::default()
            }
        };
        if let Some(at) = at {
            self.shared.faults.set(at, wanted.effects);
        }
        let full = match self.fill_disk(wanted.full).await {
            Ok(full) => full,
            Err(why) => {
                self.tell(EventType::Warning, "FaultUnsupported", &why);
                outcome = Some(Outcome::refused(&text, "Unsupported", &why));
                false
            }
        };
        if wanted.paused != self.imposed.paused {
            let signal = if wanted.paused {
                Signal::SIGSTOP
            } else {
                Signal::SIGCONT
            };
            self.signal_all(signal).await;
        }
        self.imposed = Imposed {
            text,
            paused: wanted.paused,
            full,
            at,
            // Before there is a pod, nothing is in force.
            outcome: outcome.filter(|_| at.is_some()),
        };
    }

    /// Leaves no room on its disk, or gives it back. Returns whether it is full now.
    async fn fill_disk(&self, full: bool) -> Result<bool, String> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(false);
        };
        if full {
            if let Some(why) = volumes::on_disk(&self.pod) {
                return Err(why);
            }
            sandbox.fill_disk(true).await.map_err(|e| e.full())?;
        } else if self.imposed.full
            && let Err(e) = sandbox.fill_disk(false).await
        {
            // As a rule it is gone, and with it what was full.
            tracing::debug!(error = %e.full(), pod = self.object.name(), "no room given back");
        }
        Ok(full)
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
        let wanted = read(text, "a").unwrap();
        assert!(wanted.paused && !wanted.full);
        let delay = Effect::Delay(Duration::from_millis(5));
        let effects = [
            (Key::new("a", "db"), Effect::Cut),
            (Key::new("b", "c"), delay),
        ];
        assert_eq!(wanted.effects, effects.into());
        assert_eq!(read("", "a").unwrap(), Wanted::default());
        assert!(read(r#"[{"kind":"fill-disk"}]"#, "a").unwrap().full);
        for bad in ["x", "{}", r#"[{"kind":"melt"}]"#, r#"[{"kind":"cut"}]"#] {
            assert!(read(bad, "a").is_err(), "{bad}");
        }
    }
}
