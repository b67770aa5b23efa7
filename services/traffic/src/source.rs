//! Where the records come from: this machine, or a file.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Value;

use crate::error::TrafficError;
use crate::proc::ProcReader;

/// How often `/proc` is looked at; requests in between carry the latest record. Looking costs about as
/// much as a hundred requests, and CPU use over less time than this is mostly noise.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Larger files are not telemetry samples but mistakes.
const MAX_FILE: u64 = 64 << 20;

/// An endless supply of request bodies.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Machine(Machine),
    Bodies(Vec<Bytes>),
}

#[derive(Debug)]
struct Machine {
    latest: Arc<Mutex<Bytes>>,
    stop: Arc<AtomicBool>,
    thread: thread::Thread,
}

impl Source {
    /// Real records of this machine, from its own `/proc`, renewed four times a second by a thread that
    /// ends with the source. Waits a quarter of a second, over which the first CPU use is measured.
    ///
    /// # Errors
    /// When `/proc` is not there or not as Linux has it.
    pub async fn machine() -> Result<Source, TrafficError> {
        let mut reader = ProcReader::new()?;
        tokio::time::sleep(SAMPLE_EVERY).await;
        let latest = Arc::new(Mutex::new(body(&mut reader)?));
        let stop = Arc::new(AtomicBool::new(false));
        let (latest_tx, stopped) = (Arc::clone(&latest), Arc::clone(&stop));
        let handle = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                thread::park_timeout(SAMPLE_EVERY);
                // A /proc that could be read a moment ago and cannot now is out of memory or file
                // descriptors; the last record is then still the best there is.
                if let Ok(bytes) = body(&mut reader) {
                    *latest_tx.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
                }
            }
        });
        Ok(Source(Kind::Machine(Machine {
            latest,
            stop,
            thread: handle.thread().clone(),
        })))
    }

    /// The records of a JSON file, in its order and again from the start: an array of records, one
    /// record, or one record a line. They are sent as they stand, so a file of bad records is a test of
    /// what the APIs refuse. An element that is an array itself is sent as one request.
    ///
    /// # Errors
    /// When the file cannot be read, is over 64 MiB, is not JSON or holds something else than objects.
    pub fn file(path: &Path) -> Result<Source, TrafficError> {
        let failed = |source| TrafficError::File {
            path: path.to_owned(),
            source,
        };
        let length = fs::metadata(path).map_err(failed)?.len();
        if length > MAX_FILE {
            return Err(TrafficError::Records {
                path: path.to_owned(),
                reason: format!("{length} bytes are more than the {MAX_FILE} that are read"),
            });
        }
        let text = fs::read(path).map_err(failed)?;
        let mut values = Vec::new();
        for value in serde_json::Deserializer::from_slice(&text).into_iter::<Value>() {
            values.push(value.map_err(|source| TrafficError::Json {
                path: path.to_owned(),
                source,
            })?);
        }
        if let [Value::Array(_)] = values.as_slice()
            && let Some(Value::Array(all)) = values.pop()
        {
            values = all;
        }
        Source::values(&values).map_err(|reason| TrafficError::Records {
            path: path.to_owned(),
            reason,
        })
    }

    fn values(values: &[Value]) -> Result<Source, String> {
        if values.is_empty() {
            return Err("it holds no record".to_owned());
        }
        for (index, value) in values.iter().enumerate() {
            let kind = match value {
                Value::Object(_) => continue,
                Value::Array(all) if !all.is_empty() && all.iter().all(Value::is_object) => {
                    continue;
                }
                Value::Array(_) => "an array with something else than records in it",
                Value::String(_) => "a string",
                Value::Number(_) => "a number",
                Value::Bool(_) => "a boolean",
                Value::Null => "null",
            };
            return Err(format!("element {} is {kind}", index + 1));
        }
        Ok(Source(Kind::Bodies(
            values
                .iter()
                .map(|value| Bytes::from(value.to_string()))
                .collect(),
        )))
    }

    /// The body of request `index`.
    pub(crate) fn body(&self, index: u64) -> Bytes {
        match &self.0 {
            Kind::Machine(machine) => machine
                .latest
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            Kind::Bodies(bodies) => bodies[(index % bodies.len() as u64) as usize].clone(),
        }
    }
}

fn body(reader: &mut ProcReader) -> Result<Bytes, TrafficError> {
    let record = reader.sample()?.into_record();
    // A struct of numbers and one string always serialises; `Value`'s Display cannot fail either.
    Ok(Bytes::from(serde_json::json!(record).to_string()))
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use rstest::rstest;

    fn from_text(text: &str) -> Result<Source, TrafficError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Source::file(file.path())
    }

    #[rstest]
    #[case::array(r#"[{"a":1},{"a":2}]"#, &[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":1}"#])]
    #[case::lines("{\"a\":1}\n{\"a\":2}\n", &[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":1}"#])]
    #[case::one(r#"{"a":1}"#, &[r#"{"a":1}"#, r#"{"a":1}"#])]
    #[case::batches(r#"[[{"a":1},{"a":2}],{"a":3}]"#, &[r#"[{"a":1},{"a":2}]"#, r#"{"a":3}"#])]
    fn a_file_is_sent_in_order_and_again(#[case] text: &str, #[case] bodies: &[&str]) {
        let source = from_text(text).unwrap();
        for (index, body) in bodies.iter().enumerate() {
            assert_eq!(source.body(index as u64), body.as_bytes());
        }
    }

    #[rstest]
    #[case("[]", "holds no record")]
    #[case("", "holds no record")]
    #[case("[1]", "element 1 is a number")]
    #[case(r#"[{}, "x"]"#, "element 2 is a string")]
    #[case("[[]]", "element 1 is an array")]
    #[case("[{]", "is not JSON")]
    fn a_file_of_something_else_is_explained(#[case] text: &str, #[case] message: &str) {
        let error = from_text(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[tokio::test]
    async fn this_machine_makes_records_in_the_contracts_bounds() {
        let source = Source::machine().await.unwrap();
        let record: Record = serde_json::from_slice(&source.body(0)).unwrap();
        assert!(record.total_ram > 0.0 && record.uso_ram <= record.total_ram);
        for percent in [
            record.porcentaje_ram,
            record.porcentaje_cpu_uso,
            record.porcentaje_cpu_libre,
        ] {
            assert!((0.0..=100.0).contains(&percent));
        }
        assert!(record.total_procesos >= 1);
        let states = record.procesos_corriendo
            + record.procesos_durmiendo
            + record.procesos_zombie
            + record.procesos_parados;
        assert!(states <= record.total_procesos);
    }
}
