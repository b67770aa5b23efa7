//! Ingress objects → an immutable [`Table`], step by step as ingress-nginx's
//! controller builds its configuration, accidents included: this is where
//! people should find out about them, so each is a warning.

mod annotations;
mod class;
mod endpoints;
mod merge;
mod model;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

pub(crate) use annotations::is_kept_by_nginx;
use class::{Classes, Verdict};
use model::{Model, Object};

use crate::table::Table;

/// The Kubernetes objects that routing depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// All Ingresses, ours or not.
    pub ingresses: &'a [Ingress],
    /// All IngressClasses.
    pub classes: &'a [IngressClass],
    /// Services that Ingresses may name.
    pub services: &'a [Service],
    /// Slices labelled `kubernetes.io/service-name`.
    pub endpoint_slices: &'a [EndpointSlice],
    /// Services, by namespace and name, that more endpoints are on the way
    /// for: see [`Upstream::coming`](crate::Upstream::coming).
    pub coming: &'a [(String, String)],
}

/// Something about an object that does not do what its author may expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Namespace of the Ingress.
    pub namespace: String,
    /// Name of the Ingress.
    pub name: String,
    /// What happens, and where known what to do.
    pub message: String,
}

/// Result of [`compile`].
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The routes.
    pub table: Table,
    /// In the order in which the objects take effect.
    pub warnings: Vec<Warning>,
    /// (namespace, name) of the Ingresses of our class: they get a status.
    pub accepted: Vec<(String, String)>,
}

/// Compiles the routes of all Ingresses of our class.
///
/// Never fails: what cannot be served is left out and named in a warning, as
/// one bad object must not take the others down.
pub fn compile(inputs: &Inputs<'_>) -> Compiled {
    let classes = Classes::new(inputs.classes);
    let mut warnings = Vec::new();
    let mut objects: Vec<Object<'_>> = Vec::new();
    for ingress in inputs.ingresses {
        match classes.judge(ingress) {
            Verdict::Ours => objects.push(Object::new(ingress)),
            Verdict::Foreign => {}
            Verdict::Nobodys => warnings.push(Warning {
                namespace: ingress.metadata.namespace.clone().unwrap_or_default(),
                name: ingress.metadata.name.clone().unwrap_or_default(),
                message: "has no class and no IngressClass is the default one: nothing serves it; \
                          set spec.ingressClassName to nginx"
                    .into(),
            }),
        }
    }
    // Age first (whole seconds), then namespace/name from the end of the
    // alphabet: the order in which ingress-nginx lets objects take effect.
    objects.sort_by(|a, b| {
        a.created
            .cmp(&b.created)
            .then_with(|| (b.namespace, b.name).cmp(&(a.namespace, a.name)))
    });
    let accepted = objects
        .iter()
        .map(|object| (object.namespace.to_owned(), object.name.to_owned()))
        .collect();
    let backends = endpoints::Backends::new(inputs);
    let mut model = Model::new(&objects, warnings);
    model.create_upstreams(&backends);
    model.create_servers();
    model.create_locations();
    merge::merge_canaries(&mut model);
    let (table, warnings) = model.finish();
    Compiled {
        table,
        warnings,
        accepted,
    }
}

#[cfg(test)]
mod tests;
