//! What containers print, kept in files of bounded size and read back.
//!
//! Each run of a container has a file in the form that container runtimes write
//! (`time stream P|F text`), which rotates once: at most twice [`ROTATE_AT`]
//! bytes. The present and the previous run are kept.

mod read;
mod write;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;
use tokio::sync::watch;

use crate::api::{LogError, LogQuery, LogSource};
use crate::kinds;
use crate::store::Store;

/// Size at which a log file rotates, bytes.
pub const ROTATE_AT: u64 = 8 << 20;

/// The logs of all pods; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogStore {
    dir: PathBuf,
    store: Store,
    runs: Arc<Mutex<HashMap<(String, String), Runs>>>,
}

/// The kept runs of one container.
#[derive(Debug, Default, Clone)]
struct Runs {
    current: Option<Run>,
    previous: Option<Run>,
}

/// One run of a container: its file, and how far it is written.
#[derive(Debug, Clone)]
struct Run {
    path: PathBuf,
    progress_rx: watch::Receiver<Progress>,
}

/// How far a log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// How often the file was rotated.
    rotations: u64,
    /// Bytes in the present file.
    len: u64,
    /// Nothing more will come.
    ended: bool,
}

impl LogStore {
    /// Keeps logs below `dir`, which is emptied: logs do not outlive the pods of a run.
    ///
    /// # Errors
    /// When the folder cannot be emptied or made.
    pub fn new(dir: PathBuf, store: Store) -> io::Result<LogStore> {
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        std::fs::create_dir_all(&dir)?;
        Ok(LogStore {
            dir,
            store,
            runs: Arc::default(),
        })
    }

    /// Begins the log of a container's next run and keeps writing it until both streams end.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(
        &self,
        pod_uid: &str,
        container: &str,
        run: u64,
        output: super::runtime::Started,
    ) -> io::Result<()> {
        let dir = self.dir.join(pod_uid);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{container}.{run}.log"));
        let (progress_tx, progress_rx) = watch::channel(Progress::default());
        let file = write::LogFile::create(&path, progress_tx)?;
        let mut runs = self.lock();
        let kept = runs
            .entry((pod_uid.to_owned(), container.to_owned()))
            .or_default();
        let before = kept.current.replace(Run { path, progress_rx });
        if let Some(oldest) = std::mem::replace(&mut kept.previous, before) {
            write::remove(&oldest.path);
        }
        drop(runs);
        tokio::spawn(write::pump(file, output.stdout, output.stderr));
        Ok(())
    }

    /// Removes the logs of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.lock().retain(|(uid, _), _| uid != pod_uid);
        if let Err(error) = std::fs::remove_dir_all(self.dir.join(pod_uid))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a pod's logs could not be removed"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Runs>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LogSource for LogStore {
    async fn logs(
        &self,
        ns: &str,
        pod: &str,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Bytes>, LogError> {
        let not_found = || LogError::PodNotFound {
            pod: pod.to_owned(),
        };
        let object = self.store.get(&kinds::POD, ns, pod).ok_or_else(not_found)?;
        let value = object.value();
        let names: Vec<&str> = ["containers", "initContainers"]
            .iter()
            .flat_map(|field| value["spec"][*field].as_array().into_iter().flatten())
            .filter_map(|c| c["name"].as_str())
            .collect();
        let default =
            value["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let main = value["spec"]["containers"].as_array().map_or(0, Vec::len);
        let container = match (query.container.as_deref(), default) {
            (Some(name), _) if names.contains(&name) => name,
            (Some(name), _) => {
                return Err(LogError::BadRequest(format!(
                    "container {name} is not valid for pod {pod}"
                )));
            }
            (None, Some(name)) if names.contains(&name) => name,
            (None, _) if main == 1 => names[0],
            (None, _) => {
                return Err(LogError::BadRequest(format!(
                    "a container name must be specified for pod {pod}, choose one of: [{}]",
                    names.join(" ")
                )));
            }
        };
        let runs = self
            .lock()
            .get(&(object.uid().to_owned(), container.to_owned()))
            .cloned()
            .unwrap_or_default();
        let run = if query.previous {
            runs.previous.ok_or_else(|| {
                LogError::BadRequest(format!(
                    "previous terminated container {container:?} in pod {pod:?} not found"
                ))
            })?
        } else {
            runs.current.ok_or_else(|| {
                let why = waiting_reason(value, container)
                    .unwrap_or_else(|| "ContainerCreating".to_owned());
                LogError::BadRequest(format!(
                    "container {container:?} in pod {pod:?} is waiting to start: {why}"
                ))
            })?
        };
        read::stream(run.path, run.progress_rx, query)
            .await
            .map_err(|source| LogError::Io {
                pod: pod.to_owned(),
                source,
            })
    }
}

fn waiting_reason(pod: &serde_json::Value, container: &str) -> Option<String> {
    let statuses = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|field| pod["status"][field].as_array().into_iter().flatten());
    let waiting =
        statuses.into_iter().find(|s| s["name"] == container)?["state"]["waiting"].clone();
    let reason = waiting["reason"].as_str()?;
    Some(match waiting["message"].as_str() {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    })
}

#[cfg(test)]
mod tests;
