//! Telemetry records as the reference application takes them.

use serde_json::{Value, json};

/// A whole record; `ram` marks it, so that it can be found again.
pub fn record(ram: f64) -> Value {
    json!({
        "total_ram": 16_384.0,
        "ram_libre": 16_384.0 - ram,
        "uso_ram": ram,
        "porcentaje_ram": (ram / 16_384.0 * 100.0).clamp(0.0, 100.0),
        "porcentaje_cpu_uso": 12.5,
        "porcentaje_cpu_libre": 87.5,
        "procesos_corriendo": 3,
        "total_procesos": 210,
        "procesos_durmiendo": 205,
        "procesos_zombie": 1,
        "procesos_parados": 1,
        "hora": "2026-02-03 04:05:06",
    })
}
