//! Variables: `${name}` in texts, values that keep their type, captures.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    environment::Environment,
    suite::{Suite, value::TEXT_KEY},
};

/// What is there without being said.
pub const BUILT_IN: [&str; 11] = [
    "INGRESS_URL",
    "FRONTEND_URL",
    "API3_URL",
    "DATABASE_URL",
    "KUBECONFIG",
    "DEVENV",
    "DEVENV_RUN_DIR",
    "DEVENV_RUNTIME",
    "NAMESPACE",
    "uuid",
    "run",
];

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// The value of a variable.
    Variable(String),
}

/// Why a text or value could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarError {
    /// Nothing of that name.
    #[error("there is no variable `{0}`")]
    Unknown(String),
    /// It has no value in this environment.
    #[error("${{{name}}} has no value: {why}")]
    Absent {
        /// The variable.
        name: String,
        /// What the environment lacks.
        why: String,
    },
    /// Its value needs itself.
    #[error("the value of ${{{0}}} needs itself")]
    Cycle(String),
    /// `${` and no `}` after a name.
    #[error("`${{` begins a variable, but {0}; write `$${{` for the two characters")]
    Malformed(&'static str),
    /// What came out is of the wrong type for its place.
    #[error("with the variables put in it can't be read: {0}")]
    Type(String),
}

/// Whether this can be a variable's name.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Splits a text at its variables.
///
/// # Errors
/// If a `${` begins no variable.
pub fn pieces(text: &str) -> Result<Vec<Piece>, VarError> {
    let mut out = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if at > 0 && rest.as_bytes()[at - 1] == b'$' {
            plain.push_str(&rest[..at - 1]);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner
            .find('}')
            .ok_or(VarError::Malformed("nothing closes it"))?;
        let name = &inner[..end];
        if !is_name(name) {
            return Err(VarError::Malformed("what follows is no name"));
        }
        if !plain.is_empty() {
            out.push(Piece::Text(std::mem::take(&mut plain)));
        }
        out.push(Piece::Variable(name.to_owned()));
        rest = &inner[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || out.is_empty() {
        out.push(Piece::Text(plain));
    }
    Ok(out)
}

/// The variables of one test.
#[derive(Clone, Default)]
pub struct Vars {
    /// As written: they may hold variables themselves.
    written: BTreeMap<String, Value>,
    /// As they came: never looked into.
    values: BTreeMap<String, Value>,
    /// What this environment lacks.
    absent: BTreeMap<String, String>,
    /// What `${uuid}` is made of, where two sides must get the same ones.
    uuids: Option<Arc<Uuids>>,
}

/// Random identifiers that come again from the same seed.
struct Uuids {
    seed: u64,
    given: AtomicU64,
}

impl Uuids {
    fn next(&self) -> uuid::Uuid {
        let n = self.given.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(n.to_be_bytes());
        let hash = hash.finalize();
        uuid::Builder::from_random_bytes(std::array::from_fn(|i| hash[i])).into_uuid()
    }
}

impl std::fmt::Debug for Vars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values hold the database's password.
        f.debug_set()
            .entries(self.written.keys().chain(self.values.keys()))
            .finish()
    }
}

impl Vars {
    /// Those of a suite in an environment.
    pub fn new(
        suite: &Suite,
        environment: &Environment,
        run: &str,
        run_dir: &std::path::Path,
    ) -> Self {
        let mut vars = Self::default();
        let ingress = environment.ingress.clone();
        let page = environment.cloud_run.values().next().cloned();
        for (name, value, why) in [
            (
                "INGRESS_URL",
                ingress.clone(),
                "this environment has no Ingress",
            ),
            ("API3_URL", ingress, "this environment has no Ingress"),
            (
                "FRONTEND_URL",
                page,
                "this environment has no Cloud Run service",
            ),
            (
                "DATABASE_URL",
                environment.database.clone(),
                "this environment has no database that can be reached from here",
            ),
        ] {
            match value {
                Some(value) => vars.set(name, Value::String(value)),
                None => {
                    vars.absent.insert(name.to_owned(), why.to_owned());
                }
            }
        }
        let path = |path: &std::path::Path| Value::String(path.display().to_string());
        match std::env::current_exe() {
            Ok(program) => vars.set("DEVENV", path(&program)),
            Err(error) => {
                let why = format!("the path of this program can't be read: {error}");
                vars.absent.insert("DEVENV".to_owned(), why);
            }
        }
        vars.set("KUBECONFIG", path(&environment.kubeconfig));
        vars.set("DEVENV_RUN_DIR", path(run_dir));
        let runtime = environment.runtime.clone();
        vars.set(
            "DEVENV_RUNTIME",
            Value::String(runtime.unwrap_or_else(|| "process".to_owned())),
        );
        vars.set("NAMESPACE", Value::String(environment.namespace.clone()));
        vars.set("run", Value::String(run.to_owned()));
        let profile = environment.profile.as_ref();
        vars.written = suite.vars.clone();
        if let Some(over) = profile.and_then(|name| suite.profile_vars.get(name)) {
            vars.written.extend(over.clone());
        }
        vars
    }

    /// Those with these values, as written.
    pub fn written(values: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self {
            written: values.into_iter().collect(),
            ..Self::default()
        }
    }

    /// From now on `${uuid}` gives the identifiers that belong to `seed`, from the first.
    pub(crate) fn seed_uuids(&mut self, seed: u64) {
        let given = AtomicU64::new(0);
        self.uuids = Some(Arc::new(Uuids { seed, given }));
    }

    /// Gives a variable a value that is taken as it is.
    pub fn set(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        self.absent.remove(&name);
        self.values.insert(name, value);
    }

    /// The suite's own variables and what was captured, by name.
    ///
    /// # Errors
    /// If one has no value here.
    pub fn of_suite(&self) -> Result<BTreeMap<String, Value>, VarError> {
        let own = self.written.keys().chain(
            self.values
                .keys()
                .filter(|name| !BUILT_IN.contains(&name.as_str())),
        );
        own.map(|name| Ok((name.clone(), self.get(name)?)))
            .collect()
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// If it has none.
    pub fn get(&self, name: &str) -> Result<Value, VarError> {
        self.look(name, &mut Vec::new())
    }

    /// `text` with its variables put in.
    ///
    /// # Errors
    /// If one has no value.
    pub fn text(&self, text: &str) -> Result<String, VarError> {
        self.put_text(text, &mut Vec::new())
    }

    /// `value` with its variables put in, keys included. A text that is one variable and
    /// nothing else becomes that variable's value, whatever its type.
    ///
    /// # Errors
    /// If one has no value.
    pub fn value(&self, value: &Value) -> Result<Value, VarError> {
        self.put(value, &mut Vec::new())
    }

    /// A step's description with its variables put in.
    ///
    /// # Errors
    /// If one has no value, or one of the wrong type for its place.
    pub fn fill<T: Serialize + DeserializeOwned>(&self, spec: &T) -> Result<T, VarError> {
        let value = serde_json::to_value(spec).map_err(|e| VarError::Type(e.to_string()))?;
        serde_json::from_value(self.value(&value)?).map_err(|e| VarError::Type(e.to_string()))
    }

    fn look(&self, name: &str, under: &mut Vec<String>) -> Result<Value, VarError> {
        if under.iter().any(|open| open == name) {
            return Err(VarError::Cycle(name.to_owned()));
        }
        if name == "uuid" {
            let seeded = self.uuids.as_ref().map(|uuids| uuids.next());
            let uuid = seeded.unwrap_or_else(uuid::Uuid::new_v4);
            return Ok(Value::String(uuid.to_string()));
        }
        // The suite's own come before what is built in, and captures can't have either's name.
        if let Some(written) = self.written.get(name) {
            under.push(name.to_owned());
            let value = self.put(written, under)?;
            under.pop();
            return Ok(value);
        }
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        Err(match self.absent.get(name) {
            Some(why) => VarError::Absent {
                name: name.to_owned(),
                why: why.clone(),
            },
            None => VarError::Unknown(name.to_owned()),
        })
    }

    fn put(&self, value: &Value, under: &mut Vec<String>) -> Result<Value, VarError> {
        Ok(match value {
            Value::String(text) => match pieces(text)?.as_slice() {
                [Piece::Variable(name)] => self.look(name, under)?,
                _ => Value::String(self.put_text(text, under)?),
            },
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.put(item, under))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => {
                if let (1, Some(Value::String(text))) = (map.len(), map.get(TEXT_KEY)) {
                    return Ok(Value::String(self.put_text(text, under)?));
                }
                let mut out = Map::new();
                for (key, value) in map {
                    out.insert(self.put_text(key, under)?, self.put(value, under)?);
                }
                Value::Object(out)
            }
            other => other.clone(),
        })
    }

    fn put_text(&self, text: &str, under: &mut Vec<String>) -> Result<String, VarError> {
        let mut out = String::new();
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Variable(name) => match self.look(&name, under)? {
                    Value::String(text) => out.push_str(&text),
                    other => out.push_str(&other.to_string()),
                },
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
