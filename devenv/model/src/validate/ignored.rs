//! Fields that the local target stores and does not act on. None is passed over in
//! silence because somebody forgot it: [`table`] decides about every field of every kind
//! that is run, and a test compares it with the types of Kubernetes.
//!
//! What is said, and what is not, follows from what a developer would miss:
//!
//! - A field that *gives* a program something or *changes* what happens is a warning
//!   ([`Lost`]): a hook, a volume, a port, an identity.
//! - A field that only *takes* something away is quiet: limits of CPU, memory and time,
//!   a read-only root, dropped capabilities, seccomp. A program that is right in
//!   production is right here. Nearly every good manifest has them, so that even one
//!   line per project would stand at every start, could only be silenced by making the
//!   manifest worse, and would teach people not to read warnings.
//! - So is a field about machines, clouds and schedulers: here is one node, and nothing
//!   competes for it.
//!
//! Annotations are no fields. Those of an Ingress are told by the ingress itself, which
//! knows what it makes of them; of Cloud Run's, [`table::ANNOTATIONS`] are told.

mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::Found;
use crate::node::{At, Data};
use crate::problem::Draft;
use crate::source::Span;

/// The fields of one type of Kubernetes.
pub(super) struct Part {
    /// Those that do here what they do there.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the tests want every field decided")
    )]
    honoured: &'static [&'static str],
    /// Those whose own fields are decided one by one.
    within: &'static [(&'static str, &'static Part)],
    /// Those that are not acted on and missed by nobody, with the reason.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the tests want every field decided")
    )]
    quiet: &'static [(&'static [&'static str], &'static str)],
    /// Those that are worth a warning.
    lost: &'static [Lost],
}

/// A field (or an annotation) whose effect is missed here.
struct Lost {
    field: &'static str,
    /// Which values have that effect.
    when: When,
    /// What is different here, and what to do where something can be done.
    loss: &'static str,
}

/// Values of a field. An empty string, list or mapping never counts.
enum When {
    Set,
    True,
    /// One of these words.
    Is(&'static [&'static str]),
    /// Another word than these, which say what happens here anyway.
    Not(&'static [&'static str]),
    If(fn(&Case<'_>) -> bool),
}

/// A longer value is no word to choose; the position shows it.
const LONGEST_SHOWN: usize = 20;

/// A value together with what surrounds it.
struct Case<'a> {
    /// The project's folder.
    root: &'a Path,
    object: &'a Found,
    /// What has the field.
    holder: &'a At<'a>,
    value: &'a At<'a>,
}

/// All places of one object where one field is lost.
struct Finding<'a> {
    lost: &'static Lost,
    places: Vec<(At<'a>, Span)>,
}

/// One warning for each field, however often the object has it.
pub(super) fn check(root: &Path, object: &Found, out: &mut Vec<Draft>) {
    let mut search = Search {
        root,
        object,
        findings: Vec::new(),
    };
    if let Some(part) = table::of(object.kind) {
        search.visit(part, &object.root());
    }
    for (path, annotations) in table::ANNOTATIONS {
        if object.is("serving.knative.dev/v1", "Service")
            && let Some(at) = object.root().at(path)
        {
            search.lost(annotations, &at);
        }
    }
    out.extend(search.findings.iter().map(|f| f.draft(object)));
}

struct Search<'a> {
    root: &'a Path,
    object: &'a Found,
    findings: Vec<Finding<'a>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, part: &'static Part, at: &At<'a>) {
        self.lost(part.lost, at);
        for (field, part) in part.within {
            let Some(value) = at.get(field) else {
                continue;
            };
            if matches!(value.node.data, Data::Seq(_)) {
                for item in value.items() {
                    self.visit(part, &item);
                }
            } else {
                self.visit(part, &value);
            }
        }
    }

    fn lost(&mut self, fields: &'static [Lost], holder: &At<'a>) {
        for lost in fields {
            let Some(value) = holder.get(lost.field) else {
                continue;
            };
            let case = Case {
                root: self.root,
                object: self.object,
                holder,
                value: &value,
            };
            if !lost.when.holds(&case) {
                continue;
            }
            let span = place(holder, &value, lost.field);
            match self
                .findings
                .iter_mut()
                .find(|f| std::ptr::eq(f.lost, lost))
            {
                Some(finding) => finding.places.push((value, span)),
                None => self.findings.push(Finding {
                    lost,
                    places: vec![(value, span)],
                }),
            }
        }
    }
}

/// A plain value stands for itself; of a list or mapping, its key is what to look at.
fn place(holder: &At<'_>, value: &At<'_>, field: &str) -> Span {
    match (&value.node.data, holder.node.entry(field)) {
        (Data::Seq(_) | Data::Map(_), Some(entry)) => entry.key_span,
        _ => value.span(),
    }
}

impl Finding<'_> {
    fn draft(&self, object: &Found) -> Draft {
        let (first, span) = &self.places[0];
        let draft = Draft::warning(
            "manifest::not-emulated",
            *span,
            format!("`{}` of {} is not emulated", written(first), object.title()),
        )
        .help(self.lost.loss);
        self.places[1..].iter().fold(draft, |draft, (at, span)| {
            draft.related(*span, format!("nor is `{}`", written(at)))
        })
    }
}

/// The path, with a value that is one word: another one may well be emulated.
fn written(at: &At<'_>) -> String {
    match &at.node.data {
        Data::Bool(b) => format!("{}: {b}", at.path),
        Data::Number(n) => format!("{}: {n}", at.path),
        Data::String(s) if s.len() <= LONGEST_SHOWN => format!("{}: {s}", at.path),
        _ => at.path.to_string(),
    }
}

impl When {
    fn holds(&self, case: &Case<'_>) -> bool {
        let node = case.value.node;
        let set = match &node.data {
            Data::Null => false,
            Data::String(s) => !s.is_empty(),
            Data::Seq(items) => !items.is_empty(),
            Data::Map(entries) => !entries.is_empty(),
            Data::Bool(_) | Data::Number(_) => true,
        };
        let word = |words: &[&str]| node.as_str().map(|s| words.contains(&s));
        set && match self {
            When::Set => true,
            When::True => node.as_bool() == Some(true),
            When::Is(words) => word(words) == Some(true),
            When::Not(words) => word(words) == Some(false),
            When::If(holds) => holds(case),
        }
    }
}
