//! What the reloads came to, kept where other commands read it.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Reload;
use crate::event::{Bus, Event, Report};

/// How many reloads are kept.
const KEPT: usize = 200;

/// Something that keeps the newest save from serving. It goes away when it is mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The image, the workload, `project` or `migrations`.
    pub what: String,
    /// What is wrong.
    pub report: Report,
    /// Since when.
    pub since: Timestamp,
}

/// What `devenv reloads` and `devenv status` read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Written {
    /// The newest last.
    pub reloads: VecDeque<Reload>,
    /// What is wrong now.
    pub troubles: Vec<Trouble>,
}

/// The file in a state folder.
fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("run").join("reloads.json")
}

impl Written {
    /// What the running supervisor wrote; nothing where none has reloaded anything.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(state_dir: &Path) -> io::Result<Self> {
        match fs::read(path_in(state_dir)) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }
}

/// Writes it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    bus: Bus,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    number: u64,
    reloads: VecDeque<Reload>,
    troubles: BTreeMap<String, Trouble>,
}

impl Journal {
    pub fn new(state_dir: &Path, bus: &Bus) -> Self {
        Self {
            path: path_in(state_dir),
            bus: bus.clone(),
            inner: Mutex::default(),
        }
    }

    /// Tells of a reload and keeps it; its number is given here.
    pub fn record(&self, mut reload: Reload) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.number += 1;
        reload.number = inner.number;
        if inner.reloads.len() == KEPT {
            inner.reloads.pop_front();
        }
        inner.reloads.push_back(reload.clone());
        self.write(&inner);
        drop(inner);
        self.bus.emit(Event::Reload {
            reload: Box::new(reload),
        });
    }

    /// Something is wrong; returns whether that is news.
    pub fn trouble(&self, what: &str, report: &Report) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner
            .troubles
            .get(what)
            .is_some_and(|t| t.report == *report)
        {
            return false;
        }
        let trouble = Trouble {
            what: what.to_owned(),
            report: report.clone(),
            since: Timestamp::now(),
        };
        inner.troubles.insert(what.to_owned(), trouble);
        self.write(&inner);
        true
    }

    /// It is mended; returns whether it was wrong before.
    pub fn mended(&self, what: &str) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let was = inner.troubles.remove(what).is_some();
        if was {
            self.write(&inner);
        }
        was
    }

    fn write(&self, inner: &Inner) {
        let written = Written {
            reloads: inner.reloads.clone(),
            troubles: inner.troubles.values().cloned().collect(),
        };
        let part = self.path.with_extension("part");
        let text = serde_json::to_vec(&written).unwrap_or_default();
        if let Err(e) = fs::write(&part, text).and_then(|()| fs::rename(&part, &self.path)) {
            tracing::warn!(error = %e, "the list of reloads can't be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Budget, Outcome},
        *,
    };

    fn report(message: &str) -> Report {
        Report {
            message: message.to_owned(),
            causes: vec![],
            help: None,
            output: None,
            exit_code: 1,
        }
    }

    #[test]
    fn reloads_are_numbered_bounded_and_read_by_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        assert!(Written::read(dir.path()).unwrap().reloads.is_empty());
        let journal = Journal::new(dir.path(), &Bus::default());
        for _ in 0..KEPT + 5 {
            journal.record(Reload {
                number: 0,
                what: "api1".into(),
                workload: None,
                files: vec![],
                outcome: Outcome::Reloaded,
                saved: Timestamp::now(),
                ms: Budget::default(),
                error: None,
            });
        }
        let written = Written::read(dir.path()).unwrap();
        assert_eq!(written.reloads.len(), KEPT);
        assert_eq!(written.reloads.back().unwrap().number as usize, KEPT + 5);
    }

    #[test]
    fn a_trouble_is_news_once_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let journal = Journal::new(dir.path(), &Bus::default());
        assert!(journal.trouble("api1", &report("no")));
        assert!(!journal.trouble("api1", &report("no")));
        assert!(journal.trouble("api1", &report("still no")));
        let troubles = Written::read(dir.path()).unwrap().troubles;
        assert_eq!(troubles.len(), 1);
        assert_eq!(troubles[0].report.message, "still no");
        assert!(journal.mended("api1"));
        assert!(!journal.mended("api1"));
        assert!(Written::read(dir.path()).unwrap().troubles.is_empty());
    }
}
