//! Which Ingress objects are ours.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

const CONTROLLERS: [&str; 2] = ["k8s.io/ingress-nginx", "devenv.dev/ingress"];
const NGINX: &str = "nginx";
const ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) struct Classes {
    /// Name → ours.
    known: BTreeMap<String, bool>,
    default_is_ours: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ours,
    /// Another controller's business.
    Foreign,
    /// No class, and no default class: nobody serves it.
    Nobodys,
}

impl Classes {
    pub fn new(classes: &[IngressClass]) -> Self {
        let is_ours = |class: &IngressClass| {
            class
                .spec
                .as_ref()
                .and_then(|spec| spec.controller.as_deref())
                .is_some_and(|controller| CONTROLLERS.contains(&controller))
        };
        Self {
            known: classes
                .iter()
                .filter_map(|class| Some((class.metadata.name.clone()?, is_ours(class))))
                .collect(),
            default_is_ours: classes.iter().any(|class| {
                is_ours(class)
                    && class
                        .metadata
                        .annotations
                        .as_ref()
                        .and_then(|all| all.get(DEFAULT_ANNOTATION))
                        .is_some_and(|value| value == "true")
            }),
        }
    }

    /// `spec.ingressClassName` before the old annotation before the default
    /// class. `nginx` is ours even without an IngressClass object.
    pub fn judge(&self, ingress: &Ingress) -> Verdict {
        let named = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_deref());
        let annotated = ingress
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(ANNOTATION))
            .map(String::as_str);
        match named.or(annotated) {
            Some(name) => {
                if self.known.get(name).copied().unwrap_or(name == NGINX) {
                    Verdict::Ours
                } else {
                    Verdict::Foreign
                }
            }
            None if self.default_is_ours => Verdict::Ours,
            None => Verdict::Nobodys,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn classes() -> Vec<IngressClass> {
        let class = |name: &str, controller: &str, default: bool| {
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {DEFAULT_ANNOTATION: default.to_string()}},
                "spec": {"controller": controller},
            }))
            .unwrap()
        };
        vec![
            class("web", "devenv.dev/ingress", true),
            class("inner", "k8s.io/ingress-nginx", false),
            class("gce", "k8s.io/ingress-gce", false),
        ]
    }

    #[rstest]
    #[case::nginx_without_object(Some("nginx"), None, Verdict::Ours)]
    #[case::our_controller(Some("web"), None, Verdict::Ours)]
    #[case::nginx_controller(Some("inner"), None, Verdict::Ours)]
    #[case::foreign(Some("gce"), None, Verdict::Foreign)]
    #[case::unknown(Some("traefik"), None, Verdict::Foreign)]
    #[case::old_annotation(None, Some("nginx"), Verdict::Ours)]
    #[case::spec_before_annotation(Some("gce"), Some("nginx"), Verdict::Foreign)]
    #[case::default(None, None, Verdict::Ours)]
    fn judged(
        #[case] named: Option<&str>,
        #[case] annotated: Option<&str>,
        #[case] expected: Verdict,
    ) {
        let mut ingress: Ingress =
            serde_json::from_value(json!({"metadata": {}, "spec": {"ingressClassName": named}}))
                .unwrap();
        ingress.metadata.annotations =
            annotated.map(|a| BTreeMap::from([(ANNOTATION.to_owned(), a.to_owned())]));
        assert_eq!(Classes::new(&classes()).judge(&ingress), expected);
    }

    #[test]
    fn without_a_default_class_a_classless_ingress_is_nobodys() {
        let ingress = serde_json::from_value(json!({"metadata": {}, "spec": {}})).unwrap();
        assert_eq!(Classes::new(&[]).judge(&ingress), Verdict::Nobodys);
    }

    #[test]
    fn a_foreign_class_may_be_called_nginx() {
        let foreign: IngressClass = serde_json::from_value(
            json!({"metadata": {"name": "nginx"}, "spec": {"controller": "nginx.org/ingress-controller"}}),
        )
        .unwrap();
        let ingress =
            serde_json::from_value(json!({"metadata": {}, "spec": {"ingressClassName": "nginx"}}))
                .unwrap();
        assert_eq!(Classes::new(&[foreign]).judge(&ingress), Verdict::Foreign);
    }
}
