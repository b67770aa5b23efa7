//! The telemetry record: twelve fields, their bounds, and how a request's body
//! becomes records.

mod hora;

pub use hora::Hora;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::problem::FieldError;

/// Most records that one request may carry.
pub const MAX_BATCH: usize = 1000;

/// Most unknown fields that one answer names, and how much of each name.
const MAX_WARNINGS: usize = 32;
const MAX_NAME: usize = 64;

/// One sample of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Memory, MB.
    pub total_ram: f64,
    /// Free memory, MB.
    pub ram_libre: f64,
    /// Used memory, MB.
    pub uso_ram: f64,
    /// Used memory, percent.
    pub porcentaje_ram: f64,
    /// Busy CPU, percent.
    pub porcentaje_cpu_uso: f64,
    /// Idle CPU, percent.
    pub porcentaje_cpu_libre: f64,
    /// Running processes.
    pub procesos_corriendo: u32,
    /// All processes.
    pub total_procesos: u32,
    /// Sleeping processes.
    pub procesos_durmiendo: u32,
    /// Zombies.
    pub procesos_zombie: u32,
    /// Stopped processes.
    pub procesos_parados: u32,
    /// The sender's wall clock.
    pub hora: Hora,
}

/// The names of the twelve fields, in the table's order.
pub const FIELDS: [&str; 12] = [
    "total_ram",
    "ram_libre",
    "uso_ram",
    "porcentaje_ram",
    "porcentaje_cpu_uso",
    "porcentaje_cpu_libre",
    "procesos_corriendo",
    "total_procesos",
    "procesos_durmiendo",
    "procesos_zombie",
    "procesos_parados",
    "hora",
];

/// A request's body, understood.
#[derive(Debug)]
pub struct Batch {
    /// One record, or those of the array, in its order.
    pub records: Vec<Record>,
    /// Fields that are no part of a record: ignored, but named in the answer,
    /// because real senders add fields and a typo should be seen.
    pub unknown: Vec<String>,
}

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Not JSON at all: 400.
    #[error("the body is not JSON")]
    Syntax(#[source] serde_json::Error),
    /// JSON, but not records: 422.
    #[error("the body has {} bad fields", .0.len())]
    Fields(Vec<FieldError>),
}

/// Reads a body: one record or an array of 1 to [`MAX_BATCH`].
///
/// # Errors
/// [`BatchError`]; every bad field of every record is named.
pub fn parse_body(body: &[u8]) -> Result<Batch, BatchError> {
    let value: Value = serde_json::from_slice(body).map_err(BatchError::Syntax)?;
    let mut reader = Reader::default();
    let records: Vec<Option<Record>> = match &value {
        Value::Object(map) => vec![reader.record(None, map)],
        Value::Array(items) if items.is_empty() || items.len() > MAX_BATCH => {
            reader.errors.push(FieldError {
                field: String::new(),
                index: None,
                message: format!(
                    "the array holds {} records; expected 1 to {MAX_BATCH}",
                    items.len()
                ),
            });
            Vec::new()
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| match item {
                Value::Object(map) => reader.record(Some(index), map),
                other => {
                    reader.errors.push(FieldError {
                        field: String::new(),
                        index: Some(index),
                        message: format!("is {}; expected a record (an object)", kind(other)),
                    });
                    None
                }
            })
            .collect(),
        other => {
            reader.errors.push(FieldError {
                field: String::new(),
                index: None,
                message: format!(
                    "the body is {}; expected a record (an object) or an array of records",
                    kind(other)
                ),
            });
            Vec::new()
        }
    };
    if !reader.errors.is_empty() {
        return Err(BatchError::Fields(reader.errors));
    }
    Ok(Batch {
        records: records.into_iter().flatten().collect(),
        unknown: reader.unknown.into_iter().collect(),
    })
}

#[derive(Default)]
struct Reader {
    errors: Vec<FieldError>,
    unknown: BTreeSet<String>,
}

impl Reader {
    /// Reads every field even after a bad one, so that all are named.
    fn record(&mut self, index: Option<usize>, map: &Map<String, Value>) -> Option<Record> {
        for name in map.keys() {
            if !FIELDS.contains(&name.as_str()) && self.unknown.len() < MAX_WARNINGS {
                self.unknown.insert(name.chars().take(MAX_NAME).collect());
            }
        }
        let mut fields = Fields {
            errors: &mut self.errors,
            index,
            map,
        };
        let total_ram = fields.number("total_ram", f64::MAX);
        let ram_libre = fields.number("ram_libre", f64::MAX);
        let uso_ram = fields.number("uso_ram", f64::MAX);
        let porcentaje_ram = fields.number("porcentaje_ram", 100.0);
        let porcentaje_cpu_uso = fields.number("porcentaje_cpu_uso", 100.0);
        let porcentaje_cpu_libre = fields.number("porcentaje_cpu_libre", 100.0);
        let procesos_corriendo = fields.count("procesos_corriendo");
        let total_procesos = fields.count("total_procesos");
        let procesos_durmiendo = fields.count("procesos_durmiendo");
        let procesos_zombie = fields.count("procesos_zombie");
        let procesos_parados = fields.count("procesos_parados");
        let hora = fields.hora("hora");
        Some(Record {
            total_ram: total_ram?,
            ram_libre: ram_libre?,
            uso_ram: uso_ram?,
            porcentaje_ram: porcentaje_ram?,
            porcentaje_cpu_uso: porcentaje_cpu_uso?,
            porcentaje_cpu_libre: porcentaje_cpu_libre?,
            procesos_corriendo: procesos_corriendo?,
            total_procesos: total_procesos?,
            procesos_durmiendo: procesos_durmiendo?,
            procesos_zombie: procesos_zombie?,
            procesos_parados: procesos_parados?,
            hora: hora?,
        })
    }
}

struct Fields<'a> {
    errors: &'a mut Vec<FieldError>,
    index: Option<usize>,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn bad<T>(&mut self, field: &str, message: String) -> Option<T> {
        self.errors.push(FieldError {
            field: field.to_owned(),
            index: self.index,
            message,
        });
        None
    }

    fn get(&mut self, field: &str) -> Option<&Value> {
        if !self.map.contains_key(field) {
            return self.bad(field, "is missing".to_owned());
        }
        self.map.get(field)
    }

    fn number(&mut self, field: &str, max: f64) -> Option<f64> {
        let value = self.get(field)?;
        let wanted = if max == 100.0 {
            "from 0 to 100"
        } else {
            "of 0 or more"
        };
        match value.as_f64() {
            Some(n) if (0.0..=max).contains(&n) => Some(n),
            Some(n) => self.bad(field, format!("is {n}; expected a number {wanted}")),
            None => {
                let message = format!("is {}; expected a number {wanted}", described(value));
                self.bad(field, message)
            }
        }
    }

    fn count(&mut self, field: &str) -> Option<u32> {
        let value = self.get(field)?;
        // 5.0 is an integer in JSON: some senders write every number that way.
        let whole = value.as_u64().or_else(|| {
            let n = value.as_f64()?;
            (n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n)).then_some(n as u64)
        });
        match whole.map(u32::try_from) {
            Some(Ok(n)) => Some(n),
            _ => {
                let message = format!(
                    "is {}; expected an integer from 0 to {}",
                    described(value),
                    u32::MAX
                );
                self.bad(field, message)
            }
        }
    }

    fn hora(&mut self, field: &str) -> Option<Hora> {
        let value = self.get(field)?;
        match value.as_str().map(Hora::parse) {
            Some(Some(hora)) => Some(hora),
            _ => {
                let message = format!(
                    "is {}; expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339",
                    described(value)
                );
                self.bad(field, message)
            }
        }
    }
}

/// A bad value as a message shows it: numbers as they are, strings cut short.
fn described(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::String(s) => {
            let short: String = s.chars().take(40).collect();
            let more = if short.len() < s.len() { "…" } else { "" };
            format!("the string {short:?}{more}")
        }
        other => kind(other).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "total_ram": 8192, "ram_libre": 4096.5, "uso_ram": 4095.5, "porcentaje_ram": 50.0,
            "porcentaje_cpu_uso": 12.5, "porcentaje_cpu_libre": 87.5, "procesos_corriendo": 3,
            "total_procesos": 120, "procesos_durmiendo": 115, "procesos_zombie": 1,
            "procesos_parados": 1, "hora": "2025-03-01 12:30:59"
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut record = good();
        record[field] = value;
        record
    }

    fn parse(value: &Value) -> Result<Batch, BatchError> {
        parse_body(value.to_string().as_bytes())
    }

    fn fields(value: &Value) -> Vec<(Option<usize>, String)> {
        match parse(value) {
            Err(BatchError::Fields(errors)) => {
                errors.into_iter().map(|e| (e.index, e.field)).collect()
            }
            other => panic!("expected bad fields, got {other:?}"),
        }
    }

    #[test]
    fn a_good_record_is_taken_whole() {
        let batch = parse(&good()).unwrap();
        assert_eq!(batch.records.len(), 1);
        assert!(batch.unknown.is_empty());
        assert_eq!(
            serde_json::to_value(&batch.records[0]).unwrap(),
            with("total_ram", json!(8192.0))
        );
    }

    #[test]
    fn every_missing_field_is_named() {
        let named: Vec<_> = fields(&json!({})).into_iter().map(|(_, f)| f).collect();
        assert_eq!(named, FIELDS);
    }

    #[rstest]
    #[case("total_ram", json!(-0.1))]
    #[case("total_ram", json!("8192"))]
    #[case("ram_libre", json!(null))]
    #[case("porcentaje_ram", json!(100.01))]
    #[case("porcentaje_cpu_uso", json!(-1))]
    #[case("porcentaje_cpu_libre", json!(true))]
    #[case("procesos_corriendo", json!(1.5))]
    #[case("procesos_corriendo", json!(-1))]
    #[case("total_procesos", json!(4_294_967_296_u64))]
    #[case("procesos_zombie", json!("1"))]
    #[case("procesos_parados", json!([1]))]
    #[case("hora", json!(1_740_000_000))]
    #[case("hora", json!("2025-02-29 00:00:00"))]
    fn a_bad_field_is_named_alone(#[case] field: &str, #[case] value: Value) {
        assert_eq!(fields(&with(field, value)), [(None, field.to_owned())]);
    }

    #[rstest]
    #[case("porcentaje_ram", json!(0))]
    #[case("porcentaje_ram", json!(100))]
    #[case("procesos_zombie", json!(4_294_967_295_u64))]
    #[case("procesos_zombie", json!(5.0))]
    #[case("hora", json!("2025-03-01T12:30:59-06:00"))]
    fn the_bounds_themselves_are_good(#[case] field: &str, #[case] value: Value) {
        assert!(parse(&with(field, value)).is_ok());
    }

    #[test]
    fn unknown_fields_are_named_not_refused() {
        let mut record = with("maquina", json!("vm-1"));
        record["zona"] = json!({"a": 1});
        assert_eq!(parse(&record).unwrap().unknown, ["maquina", "zona"]);
    }

    #[test]
    fn errors_of_an_array_carry_the_index() {
        let array = json!([
            good(),
            with("uso_ram", json!("x")),
            7,
            with("hora", json!(""))
        ]);
        assert_eq!(
            fields(&array),
            [
                (Some(1), "uso_ram".to_owned()),
                (Some(2), String::new()),
                (Some(3), "hora".to_owned())
            ]
        );
    }

    #[test]
    fn an_array_holds_one_to_a_thousand() {
        assert_eq!(
            parse(&Value::Array(vec![good(); MAX_BATCH]))
                .unwrap()
                .records
                .len(),
            MAX_BATCH
        );
        assert_eq!(fields(&Value::Array(vec![good(); MAX_BATCH + 1])).len(), 1);
        assert_eq!(fields(&json!([])).len(), 1);
        assert_eq!(fields(&json!("text")).len(), 1);
    }

    #[rstest]
    #[case("")]
    #[case("{")]
    #[case("{\"a\":}")]
    #[case("total_ram=1")]
    fn what_is_not_json_is_a_syntax_error(#[case] body: &str) {
        assert!(matches!(
            parse_body(body.as_bytes()),
            Err(BatchError::Syntax(_))
        ));
    }
}
