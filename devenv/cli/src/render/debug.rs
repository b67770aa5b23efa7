//! A workload that is debugged.

use devenv_engine::debug::{Debugger, Session};
use serde_json::json;

use super::{BOLD, DIM, Format, RESET, YELLOW, output::errln, output::outln, say};
use crate::launch::Launch;

/// It runs under its debugger: where, and how to connect.
pub fn debugging(session: &Session, launch: Option<&Launch>, format: Format) {
    if format == Format::Json {
        return super::json(&json!({"debug": session, "launch": launch}));
    }
    for note in &session.notes {
        errln!("{YELLOW}!{RESET} {note}");
    }
    let address = session.address;
    outln!("{BOLD}{:<10}{RESET} {address}", session.workload);
    let how = match session.debugger {
        Debugger::Debugpy => format!("debugpy listens; attach to {address}"),
        Debugger::NodeInspector => {
            format!("the Node.js inspector listens: node inspect {address}, or chrome://inspect")
        }
        Debugger::Gdbserver => match &session.program {
            Some(program) => format!(
                "attached to when gdb connects, and stops then: \
                 gdb {} -ex 'target remote {address}'",
                program.display()
            ),
            None => format!("gdbserver listens at {address}"),
        },
        Debugger::Custom => format!("[image.NAME] debug listens at {address}"),
    };
    say(&format!("  {how}"));
    if session.wait {
        say("  at each start it waits for a client; until then the version before it serves");
    }
    if session.replicas > 1 {
        say(&format!(
            "  {DIM}all {} pods run under it; the address leads to the newest{RESET}",
            session.replicas
        ));
    }
    if let Some(launch) = launch {
        let path = super::short(&launch.path);
        match (&launch.why_not, &launch.configuration) {
            (None, Some(configuration)) => say(&format!(
                "  VS Code: \"{}\" in {path}",
                configuration["name"].as_str().unwrap_or_default()
            )),
            (Some(why), Some(configuration)) => {
                errln!("{YELLOW}!{RESET} {path} is left as it is, since {why}; the configuration:");
                outln!("{configuration:#}");
            }
            (why, None) => errln!(
                "{YELLOW}!{RESET} {path} is left as it is: {}",
                why.as_deref().unwrap_or_default()
            ),
        }
    }
    say(&format!(
        "  {DIM}back: devenv debug {} --off{RESET}",
        session.workload
    ));
}

/// It runs without one again.
pub fn debug_off(workload: &str, format: Format) {
    match format {
        Format::Json => super::json(&json!({"debug": null, "workload": workload})),
        Format::Text => say(&format!("{workload} runs without a debugger")),
    }
}
