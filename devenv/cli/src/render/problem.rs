//! A problem of the project's files, with the lines it is about.

use std::{fmt, sync::Arc};

use devenv_model::{Place, Problem};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

/// The problem as miette draws it.
struct Drawn<'a> {
    problem: &'a Problem,
    source: NamedSource<Arc<String>>,
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(if self.problem.is_error() {
            miette::Severity::Error
        } else {
            miette::Severity::Warning
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let related = self
            .problem
            .related
            .iter()
            .map(|(p, what)| format!("{what}: {}", p.origin()));
        let text: Vec<String> = self.problem.help.iter().cloned().chain(related).collect();
        (!text.is_empty()).then(|| Box::new(text.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = self
            .problem
            .expected
            .as_ref()
            .map(|e| format!("expected {e}"));
        Some(Box::new(std::iter::once(labelled(
            &self.problem.place,
            label,
        ))))
    }
}

fn labelled(place: &Place, label: Option<String>) -> LabeledSpan {
    let span = place.span();
    LabeledSpan::new(label, span.start, span.len())
}

/// Lines for a terminal; colours are taken out by the printer where there are none.
pub fn render(problem: &Problem) -> String {
    let place = &problem.place;
    let text = Arc::new(place.source().text().to_owned());
    let drawn = Drawn {
        problem,
        source: NamedSource::new(problem.file(), text),
    };
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_context_lines(1);
    let mut out = String::new();
    match handler.render_report(&mut out, &drawn) {
        Ok(()) => out,
        // Its own plain form says the same.
        Err(fmt::Error) => problem.to_string(),
    }
}

/// The problem for programs.
pub fn data(problem: &Problem) -> serde_json::Value {
    serde_json::json!({
        "severity": problem.severity.to_string(),
        "code": problem.code,
        "file": problem.file(),
        "line": problem.line(),
        "column": problem.column(),
        "message": problem.message,
        "expected": problem.expected,
        "help": problem.help,
    })
}
