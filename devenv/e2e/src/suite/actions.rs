//! What each kind of step needs beside its types.

use std::path::Path;

use devenv_model::document::Document;

use super::{
    RawStep,
    spec::{BrowserSpec, FaultSpec, LoadSpec, SocketioSpec},
    value::Text,
};
use crate::capture::Source;

/// Notes what is wrong with a step that does exactly one thing.
pub(super) fn check(document: &mut Document, step: &RawStep, at: &str, folder: &Path) {
    let mut check = Check { document, folder };
    if let Some(http) = &step.http {
        let at = format!("{at}.http");
        check.url(&at, Some(&http.url));
        check.at_most_one(&at, &["json", "body", "body_file"]);
        check.file(&format!("{at}.body_file"), http.body_file.as_ref());
    }
    if let Some(hurl) = &step.hurl {
        let at = format!("{at}.hurl");
        check.needs(&at, "files", "[\"contract.hurl\"]");
        for (i, file) in hurl.files.iter().enumerate() {
            check.file(&format!("{at}.files[{i}]"), Some(file));
        }
    }
    if step.sql.is_some() {
        check.needs(&format!("{at}.sql"), "query", "\"SELECT …\"");
    }
    if let Some(split) = &step.split {
        let at = format!("{at}.split");
        check.url(&at, Some(&split.url));
        check.needs(&at, "by", "\"$.api\" or \"header:NAME\"");
        check.source(&format!("{at}.by"), Some(&split.by));
        check.positive(&at, "requests", split.requests.map(f64::from));
        check.positive(&at, "concurrency", split.concurrency.map(f64::from));
        if step.expect.shares.is_empty() {
            check
                .document
                .error("step::shares", &at, "nothing says what the shares must be")
                .expected("expect = { shares = { a = 0.5, b = 0.5 } }");
        }
    }
    if let Some(socketio) = &step.socketio {
        check.socketio(&format!("{at}.socketio"), socketio);
    }
    if let Some(browser) = &step.browser {
        check.browser(&format!("{at}.browser"), browser);
    }
    if let Some(load) = &step.load {
        check.load(&format!("{at}.load"), load);
    }
    if let Some(fault) = &step.fault {
        check.fault(&format!("{at}.fault"), fault);
    }
    if step.kubectl.is_some() {
        check.needs(&format!("{at}.kubectl"), "args", "[\"get\", \"pods\"]");
    }
    if let Some(exec) = &step.exec {
        let at = format!("{at}.exec");
        check.needs(&at, "command", "[\"pytest\", \"-q\"] or a string for sh -c");
        let argv = exec.command.argv();
        let none = argv.first().is_none_or(|program| program.is_empty())
            || matches!(&exec.command, super::value::Program::Shell(line) if line.0.trim().is_empty());
        if none && check.document.has(&format!("{at}.command")) {
            check
                .document
                .error(
                    "step::value",
                    &format!("{at}.command"),
                    "it names no program",
                )
                .expected("[\"pytest\", \"-q\"] or a string for sh -c");
        }
    }
}

struct Check<'d> {
    document: &'d mut Document,
    folder: &'d Path,
}

impl Check<'_> {
    fn written(&self, at: &str, keys: &[&'static str]) -> Vec<&'static str> {
        let written = |key: &&&str| {
            self.document
                .value(&format!("{at}.{key}"))
                .is_some_and(|value| value != serde_json::Value::Bool(false))
        };
        keys.iter().filter(written).copied().collect()
    }

    fn needs(&mut self, at: &str, key: &str, example: &str) {
        if !self.document.has(&format!("{at}.{key}")) {
            self.document
                .error("step::missing-key", at, format!("`{key}` is missing"))
                .expected(format!("{key} = {example}"));
        }
    }

    fn url(&mut self, at: &str, url: Option<&Text>) {
        self.needs(at, "url", "\"${INGRESS_URL}/api\"");
        let Some(url) = url.filter(|url| !url.as_str().is_empty()) else {
            return;
        };
        let text = url.as_str();
        let complete = text.starts_with("http://") || text.starts_with("https://");
        if !complete && !text.starts_with("${") {
            self.document
                .error(
                    "step::url",
                    &format!("{at}.url"),
                    format!("{text:?} is no whole address"),
                )
                .expected("http://…, https://… or a variable at the start")
                .help("begin it with ${INGRESS_URL}");
        }
    }

    fn source(&mut self, at: &str, source: Option<&Text>) {
        let Some(source) = source.filter(|text| !text.as_str().contains("${")) else {
            return;
        };
        if self.document.has(at)
            && let Err(why) = Source::parse(source.as_str())
        {
            self.document
                .error("step::json-path", at, why)
                .expected("a JSON path such as \"$.api\", or \"header:NAME\"");
        }
    }

    fn file(&mut self, at: &str, file: Option<&Text>) {
        let Some(file) = file.filter(|file| !file.as_str().contains("${")) else {
            return;
        };
        if !self.folder.join(file.as_str()).is_file() {
            self.document
                .error(
                    "step::file",
                    at,
                    format!("there is no file {:?}", file.as_str()),
                )
                .expected("a file, relative to the suite's folder");
        }
    }

    fn positive(&mut self, at: &str, key: &str, number: Option<f64>) {
        if number.is_some_and(|n| n <= 0.0 || !n.is_finite()) {
            self.document
                .error(
                    "step::value",
                    &format!("{at}.{key}"),
                    format!("`{key}` is not above 0"),
                )
                .expected("a number above 0");
        }
    }

    fn at_most_one(&mut self, at: &str, keys: &[&'static str]) {
        let written = self.written(at, keys);
        if written.len() > 1 {
            self.document
                .error(
                    "step::keys",
                    at,
                    format!("{} exclude each other", written.join(" and ")),
                )
                .expected(format!("one of {}", keys.join(", ")));
        }
    }

    /// Exactly one of these keys; which one, if so.
    fn one(&mut self, at: &str, keys: &[&'static str]) -> Option<&'static str> {
        match self.written(at, keys).as_slice() {
            [one] => Some(one),
            [] => {
                self.document
                    .error("step::keys", at, "it does nothing")
                    .expected(format!("one of {}", keys.join(", ")));
                None
            }
            several => {
                self.document
                    .error(
                        "step::keys",
                        at,
                        format!("{} exclude each other", several.join(" and ")),
                    )
                    .expected(format!("one of {}", keys.join(", ")));
                None
            }
        }
    }

    /// Keys that mean something only beside another.
    fn only_with(&mut self, at: &str, with: &[&str], one: &str, keys: &[&'static str]) {
        if with.contains(&one) {
            return;
        }
        for key in self.written(at, keys) {
            self.document
                .error(
                    "step::keys",
                    &format!("{at}.{key}"),
                    format!("`{key}` means nothing for `{one}`"),
                )
                .expected(format!("`{key}` beside {}", with.join(" or ")));
        }
    }

    fn socketio(&mut self, at: &str, spec: &SocketioSpec) {
        let Some(one) = self.one(at, &["open", "emit", "event", "close", "disconnected"]) else {
            return;
        };
        if one == "open" {
            self.url(at, spec.url.as_ref());
        } else {
            self.needs(at, "on", "\"the session's name\"");
        }
        self.only_with(at, &["open"], one, &["url", "transport"]);
        self.only_with(at, &["emit"], one, &["data", "ack"]);
        self.only_with(
            at,
            &["open", "emit", "event", "disconnected"],
            one,
            &["within"],
        );
    }

    fn browser(&mut self, at: &str, spec: &BrowserSpec) {
        let one = self.one(
            at,
            &[
                "open",
                "click",
                "type",
                "see",
                "gone",
                "count",
                "screenshot",
                "script",
            ],
        );
        let Some(one) = one else { return };
        self.only_with(at, &["open"], one, &["window", "language"]);
        self.only_with(at, &["see", "gone"], one, &["within"]);
        for (i, pattern) in spec.allow_console.iter().enumerate() {
            if !pattern.as_str().contains("${")
                && let Err(error) = regex::Regex::new(pattern.as_str())
            {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim().to_owned();
                self.document.error(
                    "step::value",
                    &format!("{at}.allow_console[{i}]"),
                    format!("this is no regular expression: {why}"),
                );
            }
        }
        if spec.window.is_some_and(|window| window.contains(&0)) {
            self.document
                .error(
                    "step::value",
                    &format!("{at}.window"),
                    "a window has no size",
                )
                .expected("[width, height] in CSS pixels");
        }
    }

    fn load(&mut self, at: &str, spec: &LoadSpec) {
        let Some(one) = self.one(at, &["start", "stop"]) else {
            return;
        };
        if one == "start" {
            self.url(at, spec.url.as_ref());
        }
        self.positive(at, "rate", spec.rate);
        self.source(&format!("{at}.by"), spec.by.as_ref());
        if let Some(ids) = spec.acknowledged.as_ref().and_then(|a| a.ids.as_ref()) {
            self.source(&format!("{at}.acknowledged.ids"), Some(ids));
        }
        let start = [
            "method",
            "url",
            "headers",
            "json",
            "rate",
            "idempotency",
            "retry",
            "acknowledged",
            "by",
            "timeout",
        ];
        self.only_with(at, &["start"], one, &start);
        self.only_with(at, &["stop"], one, &["lost", "doubled"]);
        for (key, query) in [("lost", &spec.lost), ("doubled", &spec.doubled)] {
            if query
                .as_ref()
                .is_some_and(|query| !query.as_str().contains("${ids}"))
            {
                self.document
                    .error("step::value", &format!("{at}.{key}"), "it asks for no ids")
                    .expected("SELECT id FROM records WHERE id IN (${ids})");
            }
        }
    }

    fn fault(&mut self, at: &str, spec: &FaultSpec) {
        let kinds = [
            "delete_pod",
            "pause",
            "stop_database",
            "cut",
            "delay",
            "fill_disk",
            "lift",
        ];
        let Some(one) = self.one(at, &kinds) else {
            return;
        };
        let lasting = ["pause", "stop_database", "cut", "delay", "fill_disk"];
        self.only_with(at, &lasting, one, &["for", "until"]);
        if lasting.contains(&one) && spec.for_.is_some() == spec.until.is_some() {
            self.document
                .error(
                    "step::keys",
                    at,
                    "nothing says how long the fault stays, or two things do",
                )
                .expected("for = \"3s\", or until = \"name\" and a later { lift = \"name\" }");
        }
        let ends =
            |between: (&Text, &Text)| [("from", between.0.clone()), ("to", between.1.clone())];
        let workload = |key: &str, text: &Option<Text>| -> Option<(String, Text)> {
            text.clone().map(|text| (key.to_owned(), text))
        };
        let mut objects: Vec<(String, Text)> = Vec::new();
        objects.extend(workload("delete_pod", &spec.delete_pod));
        objects.extend(workload("pause", &spec.pause));
        objects.extend(workload("fill_disk", &spec.fill_disk));
        if let Some(cut) = &spec.cut {
            objects
                .extend(ends((&cut.from, &cut.to)).map(|(end, text)| (format!("cut.{end}"), text)));
        }
        if let Some(delay) = &spec.delay {
            objects.extend(
                ends((&delay.from, &delay.to)).map(|(end, text)| (format!("delay.{end}"), text)),
            );
        }
        for (key, text) in objects {
            if text.as_str().contains("${") {
                continue;
            }
            let kinds: &[&str] = if key.ends_with(".to") {
                &["service"]
            } else {
                &["deployment", "statefulset", "daemonset"]
            };
            let fits = text
                .as_str()
                .split_once('/')
                .is_some_and(|(kind, name)| kinds.contains(&kind) && !name.is_empty());
            if !fits {
                self.document
                    .error(
                        "step::value",
                        &format!("{at}.{key}"),
                        format!("{:?} names no object", text.as_str()),
                    )
                    .expected(format!("{}/NAME", kinds.join("/NAME, ")));
            }
        }
    }
}
