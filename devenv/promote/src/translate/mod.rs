//! Ingresses with ingress-nginx's annotations as Gateway API objects.
//!
//! What is translated is what the objects *mean* in ingress-nginx 1.15: a canary hangs on
//! its main's Service and port, wherever those are used, inherits everything else from
//! main, and is chosen by header, then cookie, then weight. Where that can't be said in
//! Gateway API, or GKE does not do it, the result is an error that names the object, the
//! annotation and the alternative, all of them at once. Nothing is dropped in silence:
//! each annotation is translated, known to have no meaning there, which is a [`Note`], or
//! an error.
//!
//! What GKE does and does not is taken from the conformance report that Google filed for
//! GKE 1.34.4 (Gateway API 1.4, 2026-03-19): header matches, host rewrites, redirects of
//! paths and schemes and the codes 301 and 302 are supported; HTTPRouteRequestTimeout,
//! HTTPRouteCORS, HTTPRouteMethodMatching, HTTPRoutePortRedirect and the codes 303, 307
//! and 308 are not. Of path rewrites it does not claim the conformance feature, which
//! includes `ReplaceFullPath`; `ReplacePrefixMatch` is documented. None of this was
//! applied to a real GKE yet.

mod annotations;
mod canary;
mod gateway;
mod known;
mod merge;
mod model;
mod paths;
mod policies;
mod routes;

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, networking::v1::Ingress};
use serde::Serialize;
use serde_json::Value;

use model::Model;
pub use policies::policies_of_canary;

/// The prefix of ingress-nginx's annotations.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Whose Gateway it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// GKE's: only what it supports, with its policies for probes and timeouts.
    #[default]
    Gke,
    /// Any implementation of Gateway API 1.5 and its extended features: timeouts, CORS and
    /// rewrites of full paths are said in the route.
    Standard,
}

/// How to translate.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace of all objects, in and out.
    pub namespace: String,
    /// What the Gateway is called.
    pub gateway: String,
    /// Its class, such as `gke-l7-global-external-managed`.
    pub gateway_class: String,
    /// The class of the Ingresses to translate. Others are left out, with a note.
    pub ingress_class: String,
    /// Whose Gateway it is.
    pub dialect: Dialect,
}

impl Options {
    /// For GKE, by an external load balancer, of Ingresses of class `nginx`.
    pub fn gke(namespace: impl Into<String>, gateway: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            gateway: gateway.into(),
            gateway_class: "gke-l7-global-external-managed".into(),
            ingress_class: "nginx".into(),
            dialect: Dialect::Gke,
        }
    }

    /// The largest weight of a backend: a URL map of Google Cloud takes 0 to 1000, an
    /// HTTPRoute up to a million.
    pub fn largest_weight(&self) -> u32 {
        match self.dialect {
            Dialect::Gke => crate::shares::LARGEST_ON_GOOGLE_CLOUD,
            Dialect::Standard => crate::shares::LARGEST,
        }
    }
}

/// What there is to translate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// All Ingresses of the namespace.
    pub ingresses: &'a [Ingress],
    /// The Services that they name.
    pub services: &'a [Service],
    /// What those Services select: probes become health checks.
    pub deployments: &'a [Deployment],
}

/// What Ingresses come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Translation {
    /// To be applied: the Gateway, its routes, then policies, each kind by name.
    pub objects: Vec<Value>,
    /// What is different all the same, and what has no meaning any more.
    pub notes: Vec<Note>,
}

/// Something that one should know of a translation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// `Ingress so1-fase2/telemetry`.
    pub object: String,
    /// The annotation that it is about, in full.
    pub annotation: Option<String>,
    /// What is so.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.object, self.annotation.as_deref())?;
        f.write_str(&self.message)
    }
}

/// Why something can't be said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub struct Untranslatable {
    /// `Ingress so1-fase2/telemetry`.
    pub object: String,
    /// The annotation that it is about, in full.
    pub annotation: Option<String>,
    /// What can't be said, and why.
    pub problem: String,
    /// What to do.
    pub instead: String,
}

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.object, self.annotation.as_deref())?;
        write!(f, "{}; {}", self.problem, self.instead)
    }
}

fn place(f: &mut fmt::Formatter<'_>, object: &str, annotation: Option<&str>) -> fmt::Result {
    match annotation {
        Some(annotation) => write!(f, "{object}: {annotation}: "),
        None => write!(f, "{object}: "),
    }
}

/// What is found on the way.
#[derive(Debug, Default)]
struct Findings {
    problems: BTreeSet<Untranslatable>,
    notes: BTreeSet<Note>,
}

impl Findings {
    fn problem(
        &mut self,
        object: &str,
        annotation: Option<&str>,
        problem: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.problems.insert(Untranslatable {
            object: object.to_owned(),
            annotation: annotation.map(|name| format!("{PREFIX}{name}")),
            problem: problem.into(),
            instead: instead.into(),
        });
    }

    fn note(&mut self, object: &str, annotation: Option<&str>, message: impl Into<String>) {
        self.notes.insert(Note {
            object: object.to_owned(),
            annotation: annotation.map(|name| format!("{PREFIX}{name}")),
            message: message.into(),
        });
    }
}

/// Translates all Ingresses of a namespace at once: canaries and their mains belong
/// together.
///
/// # Errors
/// Everything that can't be said, in the order of objects and annotations.
pub fn translate(
    inputs: &Inputs<'_>,
    options: &Options,
) -> Result<Translation, Vec<Untranslatable>> {
    let mut findings = Findings::default();
    let model = Model::new(inputs, options, &mut findings);
    let mut objects = vec![gateway::gateway(&model, options, &mut findings)];
    objects.extend(routes::routes(&model, options, &mut findings));
    if options.dialect == Dialect::Gke {
        objects.extend(policies::policies(&model, inputs, options, &mut findings));
    }
    if findings.problems.is_empty() {
        Ok(Translation {
            objects,
            notes: findings.notes.into_iter().collect(),
        })
    } else {
        Err(findings.problems.into_iter().collect())
    }
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
