//! api3: reads the telemetry out of MySQL and pushes it to pages over Socket.IO.

use std::process::ExitCode;

fn main() -> ExitCode {
    match api3::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api3: {}", telemetry::service::chain(&error));
            ExitCode::FAILURE
        }
    }
}
