//! What lives as long as a test: each kind of step keeps its own, by name.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

/// Something that a step opened and that ends with its test at the latest.
#[async_trait]
pub trait Session: Any + Send {
    /// Ends it. Called once, also after a failure and after the test's time is up;
    /// what it has to say about that is for the log.
    async fn close(self: Box<Self>);

    /// A step of the test failed: a picture of it, if there is one to take. `dir` is the
    /// run's folder, `label` names the attempt; the answer is relative to `dir`.
    async fn picture(&mut self, dir: &Path, label: &str) -> Option<PathBuf> {
        let _ = (dir, label);
        None
    }
}

/// All that a test has open. Dropping it drops them unclosed: guards within must do then
/// what can't wait.
#[derive(Default)]
pub struct Sessions(BTreeMap<(TypeId, String), Box<dyn Session>>);

impl Sessions {
    /// Keeps a session; one of the same type and name that was there is handed back.
    pub fn insert<S: Session>(&mut self, name: &str, session: S) -> Option<Box<dyn Session>> {
        self.0.insert(key::<S>(name), Box::new(session))
    }

    /// The session of this type and name.
    pub fn get<S: Session>(&mut self, name: &str) -> Option<&mut S> {
        let session: &mut dyn Any = self.0.get_mut(&key::<S>(name))?.as_mut();
        session.downcast_mut()
    }

    /// Takes a session out; the caller ends it.
    pub fn remove<S: Session>(&mut self, name: &str) -> Option<Box<S>> {
        let session: Box<dyn Any> = self.0.remove(&key::<S>(name))?;
        session.downcast().ok()
    }

    /// The names of the sessions of this type.
    pub fn names<S: Session>(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter(|(kind, _)| *kind == TypeId::of::<S>())
            .map(|(_, name)| name.as_str())
            .collect()
    }

    /// Pictures of what can be pictured.
    pub async fn pictures(&mut self, dir: &Path, label: &str) -> Vec<PathBuf> {
        let mut out = Vec::new();
        for session in self.0.values_mut() {
            out.extend(session.picture(dir, label).await);
        }
        out
    }

    /// Ends all of them.
    pub async fn close(&mut self) {
        while let Some((_, session)) = self.0.pop_first() {
            session.close().await;
        }
    }
}

fn key<S: Session>(name: &str) -> (TypeId, String) {
    (TypeId::of::<S>(), name.to_owned())
}
