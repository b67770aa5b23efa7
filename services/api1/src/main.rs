//! api1: accepts telemetry records and writes them to MySQL, stamped with its
//! name. All of it is in the crate `telemetry`.

use std::process::ExitCode;

/// What answers say of the build they came from.
const VERSION: &str = "1.0.0";

fn main() -> ExitCode {
    let defaults = telemetry::Defaults {
        api_name: "api1",
        port: 5000,
        version: VERSION,
    };
    match telemetry::run_write_service(defaults) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api1: {}", telemetry::service::chain(&error));
            ExitCode::FAILURE
        }
    }
}
