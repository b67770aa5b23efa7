//! The record that the reference application takes, as its contract fixes it.

use serde::{Deserialize, Serialize};

/// One telemetry record: flat, snake_case, in Spanish, as the applications of this kind write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// RAM of the machine, MB.
    pub total_ram: f64,
    /// RAM that programs could still take (`MemAvailable`), MB.
    pub ram_libre: f64,
    /// RAM in use, MB: `total_ram - ram_libre`.
    pub uso_ram: f64,
    /// RAM in use, percent of `total_ram`, 0..100.
    pub porcentaje_ram: f64,
    /// CPU time spent working since the last sample, percent of all cores, 0..100.
    pub porcentaje_cpu_uso: f64,
    /// CPU time spent idle or waiting for disks since the last sample, percent, 0..100.
    pub porcentaje_cpu_libre: f64,
    /// Processes running or ready to run (state `R`).
    pub procesos_corriendo: u64,
    /// All processes.
    pub total_procesos: u64,
    /// Processes waiting (states `S`, `D`, `I`).
    pub procesos_durmiendo: u64,
    /// Processes that ended and whose parent has not asked for the result (state `Z`).
    pub procesos_zombie: u64,
    /// Processes stopped by a signal or a debugger (states `T`, `t`).
    pub procesos_parados: u64,
    /// The sender's local wall clock, `YYYY-MM-DD HH:MM:SS`.
    pub hora: String,
}

/// This moment as `hora` writes it.
pub(crate) fn hora_now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}
