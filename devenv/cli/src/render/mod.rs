//! The only place that prints. Results go to stdout, talk to stderr.

mod debug;
mod e2e;
mod output;
mod problem;
mod progress;
mod reload;
mod table;
mod watch;
mod workload;

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum;
use devenv_engine::{logs::Line, status::Status};
use devenv_model::Problem;
use devenv_platform::{
    Endpoints,
    doctor::{Check, Fix, State, install_command},
};
use serde::Serialize;

use crate::error::CliError;
pub use debug::{debug_off, debugging};
pub use e2e::{
    Run, comparison, github, kept, no_verdict, reports, schema, tests, unjudged, verdict,
    verification,
};
use output::{errln, outln};
pub use output::{gone, lost};
pub use progress::Progress;
pub use reload::reloads;
use table::table;
pub use watch::{because, watched, watched_run, watching};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document, or JSON lines for what goes on.
    Json,
}

pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const RESET: &str = "\x1b[0m";

/// Tells people something.
pub fn say(text: &str) {
    errln!("{text}");
}

fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => outln!("{text}"),
        Err(e) => errln!("can't print the result as JSON: {e}"),
    }
}

/// An error that ends the command.
pub fn error(e: &CliError, format: Format) {
    if let CliError::Problems(problems) | CliError::BadSuites(problems) = e {
        self::problems(problems);
    }
    if let CliError::Missing(checks) = e {
        for check in checks {
            errln!("{RED}✗{RESET} {}: {}", check.name, check.detail);
            if let Some(fix) = &check.fix {
                errln!("  mend it with: {BOLD}{}{RESET}", fix_text(fix));
            }
        }
    }
    let report = e.report();
    if let Some(output) = &report.output {
        errln!("{output}");
    }
    if format == Format::Json {
        let mut document = serde_json::json!({"event": "failed", "report": report});
        if let CliError::Problems(problems) | CliError::BadSuites(problems) = e {
            document["problems"] = problems.iter().map(problem::data).collect();
        }
        if let CliError::Missing(checks) = e {
            document["missing"] = serde_json::json!(checks);
        }
        json(&document);
    }
    errln!("{RED}{BOLD}error{RESET}{BOLD}:{RESET} {}", report.message);
    for cause in &report.causes {
        errln!("  because: {cause}");
    }
    if let Some(help) = &report.help {
        errln!("  {BOLD}help{RESET}: {help}");
    }
}

/// What is wrong in the project's files.
pub fn problems(problems: &[Problem]) {
    for p in problems {
        errln!("{}", problem::render(p));
    }
}

fn fix_text(fix: &Fix) -> String {
    match fix {
        Fix::Packages(p) => install_command(p),
        Fix::Command(c) => c.clone(),
    }
}

/// What `doctor` found.
pub fn checks(checks: &[Check], format: Format) {
    if format == Format::Json {
        return json(&checks);
    }
    for c in checks {
        let mark = match c.state {
            State::Ok => format!("{GREEN}✓{RESET}"),
            State::Optional => format!("{YELLOW}–{RESET}"),
            State::Missing => format!("{RED}✗{RESET}"),
        };
        outln!("{mark} {}: {}", c.name, c.detail);
        if let (Some(fix), true) = (&c.fix, c.state != State::Ok) {
            outln!("    {BOLD}{}{RESET}", fix_text(fix));
        }
    }
}

/// Where the system is, when it is ready.
pub fn endpoints(e: &Endpoints, format: Format) {
    if format == Format::Json {
        // They came with the event that all is ready.
        return;
    }
    let mut rows = Vec::new();
    if let Some(url) = &e.ingress {
        let also = if e.ingress_also.is_empty() {
            String::new()
        } else {
            format!("  {DIM}also {}{RESET}", e.ingress_also.join(", "))
        };
        rows.push(("ingress".to_owned(), format!("{url}{also}")));
    }
    for (name, url) in &e.cloud_run {
        rows.push((name.clone(), url.clone()));
    }
    if let Some(d) = &e.database {
        let version = if d.stands_in {
            format!("{} {}, standing in for {}", d.engine, d.version, d.asked)
        } else {
            format!("{} {}", d.engine, d.version)
        };
        rows.push((
            "database".to_owned(),
            format!("{}:{}  {DIM}{version}{RESET}", d.host, d.port),
        ));
    }
    rows.push((
        "kubectl".to_owned(),
        format!("kubectl --kubeconfig {} get pods", short(&e.kubeconfig)),
    ));
    for (name, value) in rows {
        outln!("  {BOLD}{name:<10}{RESET} {value}");
    }
}

/// Nothing was to be done.
pub fn already_up(pid: u32, e: &Endpoints, format: Format) {
    match format {
        Format::Json => json(&serde_json::json!({
            "event": "already-up", "supervisor": {"pid": pid}, "endpoints": e,
        })),
        Format::Text => {
            say(&format!(
                "already up (supervisor pid {pid}); `devenv down` stops it"
            ));
            endpoints(e, format);
        }
    }
}

/// A path as people would type it from here.
fn short(path: &std::path::Path) -> String {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// One address.
pub fn url(url: &str, format: Format) {
    match format {
        Format::Text => outln!("{url}"),
        Format::Json => json(&serde_json::json!({"url": url})),
    }
}

/// All addresses.
pub fn urls(urls: &BTreeMap<String, String>, format: Format) {
    if format == Format::Json {
        return json(urls);
    }
    for (name, url) in urls {
        outln!("{BOLD}{name:<10}{RESET} {url}");
    }
}

/// A line of a log.
pub fn log_line(line: &Line, format: Format) {
    match format {
        Format::Text => outln!("{DIM}{} |{RESET} {}", line.pod, line.line),
        Format::Json => json(line),
    }
}

/// A line of a log among other events.
pub fn log_event(line: &Line, format: Format) {
    match format {
        Format::Text => log_line(line, format),
        Format::Json => json(&LogEvent { event: "log", line }),
    }
}

#[derive(Serialize)]
struct LogEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    line: &'a Line,
}

/// What `down` did.
pub fn down(was_up: bool, volumes: bool, removed: bool, took: Duration, format: Format) {
    let what = match (was_up, volumes, removed) {
        (true, true, _) => "stopped, and the data is gone",
        (true, false, _) => "stopped; the data stays (`down -v` removes it)",
        (false, true, true) => "nothing was running; the data is gone",
        (false, true, false) => "nothing was running, and there was no data",
        (false, false, _) => "nothing is running",
    };
    let ms = took.as_millis();
    match format {
        Format::Text => errln!("{what} {DIM}({ms} ms){RESET}"),
        Format::Json => json(&serde_json::json!({
            "result": what, "was_up": was_up, "data_removed": removed, "ms": ms,
        })),
    }
}

/// What runs.
pub fn status(s: &Status, format: Format) {
    if format == Format::Json {
        return json(s);
    }
    let colour = if s.ready { GREEN } else { YELLOW };
    let late: Vec<&str> = s
        .workloads
        .iter()
        .filter(|w| w.ready < w.wanted)
        .map(|w| w.name.as_str())
        .collect();
    let but = if late.is_empty() {
        String::new()
    } else {
        format!(", but not ready: {}", late.join(", "))
    };
    print_pair(
        "project",
        &format!("{} (namespace {})", s.project, s.namespace),
    );
    let pid = s
        .supervisor
        .as_ref()
        .map(|h| format!(" {DIM}supervisor pid {}{RESET}", h.pid));
    print_pair(
        "state",
        &format!("{colour}{}{but}{RESET}{}", s.state, pid.unwrap_or_default()),
    );
    if let Some(e) = &s.endpoints {
        for (name, url) in e
            .ingress
            .iter()
            .map(|u| ("ingress", u))
            .chain(e.cloud_run.iter().map(|(n, u)| (n.as_str(), u)))
        {
            print_pair(name, url);
        }
    }
    if let Some(d) = &s.database {
        let f = &d.facts;
        let asked = if f.stands_in {
            format!(", standing in for {}", f.asked)
        } else {
            String::new()
        };
        let pid = match (d.running, d.pid) {
            (false, _) => "not running".to_owned(),
            (true, Some(pid)) => format!("pid {pid}"),
            (true, None) => "in a container".to_owned(),
        };
        print_pair(
            "database",
            &format!(
                "{} {}{asked} at {}:{} {DIM}{pid}{RESET}",
                f.engine, f.version, f.host, f.port
            ),
        );
    }
    for line in s.troubles.iter().flat_map(reload::trouble) {
        outln!("{line}");
    }
    for warning in &s.warnings {
        outln!("{YELLOW}!{RESET} {}", warning.text(None));
    }
    workloads(s);
    inferred(s);
}

fn inferred(s: &Status) {
    if s.inferred.is_empty() {
        return;
    }
    let rows: Vec<[String; 4]> = s
        .inferred
        .iter()
        .map(|i| [&i.image, &i.key, &i.value, &i.why].map(Clone::clone))
        .collect();
    outln!("");
    for line in table(&["IMAGE", "KEY", "INFERRED", "FROM"], &rows) {
        outln!("{line}");
    }
}

fn workloads(s: &Status) {
    if s.workloads.is_empty() {
        return;
    }
    outln!("");
    for line in workload::lines(&s.workloads) {
        outln!("{line}");
    }
}

fn print_pair(name: &str, value: &str) {
    outln!("{BOLD}{name:<10}{RESET} {value}");
}

/// A look at a load run under way.
pub fn traffic_progress(p: &traffic::Progress) {
    let total = p.total.map(|t| format!("/{t}")).unwrap_or_default();
    let by_api: Vec<String> = p.by_api.iter().map(|(k, v)| format!("{k} {v}")).collect();
    errln!(
        "{DIM}{}{total} requests, {} failed, {:.0}/s, p99 {:.1} ms, {}{RESET}",
        p.requests,
        p.failures,
        p.last_rate_per_s,
        p.last_latency_ms.p99,
        by_api.join(", ")
    );
}

/// What came of a load run.
pub fn traffic(r: &traffic::Report, format: Format) {
    if format == Format::Json {
        return json(r);
    }
    print_pair(
        "requests",
        &format!(
            "{} in {:.2} s, {:.0}/s",
            r.requests, r.duration_s, r.rate_per_s
        ),
    );
    let errors: Vec<String> = r.errors.iter().map(|(k, v)| format!("{k} {v}")).collect();
    print_pair(
        "failures",
        format!("{} {}", r.failures, errors.join(", ")).trim_end(),
    );
    let total = r.by_api.values().sum::<u64>().max(1);
    for (api, n) in &r.by_api {
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let share = 100.0 * *n as f64 / total as f64;
        print_pair(api, &format!("{n} ({share:.1} %)"));
    }
    let l = &r.latency_ms;
    print_pair(
        "latency",
        &format!(
            "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            l.p50, l.p90, l.p99, l.max
        ),
    );
}
