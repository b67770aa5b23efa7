//! Canaries: their upstream hangs on that of main, wherever main's is used.

use k8s_openapi::api::core::v1::Service;

use super::{
    Findings,
    canary::Policy,
    model::{Canary, Location, Model, Object, Upstream, shown, upstream},
};

impl Model {
    pub(super) fn add_canary(
        &mut self,
        object: &Object<'_>,
        policy: &Policy,
        services: &[Service],
        findings: &mut Findings,
    ) {
        let Some(spec) = &object.ingress.spec else {
            return;
        };
        if self.hosts.is_empty() {
            findings.problem(
                &object.shown,
                None,
                "is a canary without any ordinary Ingress beside it, so nothing is served",
                "add the main Ingress",
            );
            return;
        }
        if spec.tls.is_some() {
            findings.note(
                &object.shown,
                None,
                "its tls section counts for nothing, main's does",
            );
        }
        let mut pairs: Vec<(Upstream, Upstream)> = Vec::new();
        if let Some(backend) = &spec.default_backend
            && let Some(alternative) = upstream(&object.shown, backend, services, findings)
        {
            let of_all = self.hosts.iter().find(|host| host.name.is_empty());
            for location in of_all.iter().flat_map(|host| &host.locations) {
                pairs.push((location.upstream.clone(), alternative.clone()));
            }
        }
        let mut named = Vec::new();
        for rule in spec.rules.as_deref().unwrap_or_default() {
            let name = rule.host.as_deref().unwrap_or_default();
            let Some(host) = self.hosts.iter().find(|host| host.name == name) else {
                findings.problem(
                    &object.shown,
                    None,
                    format!(
                        "no ordinary Ingress is for {}, so its rule does nothing",
                        shown(name)
                    ),
                    "use main's host exactly, or remove the rule",
                );
                continue;
            };
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let written = path.path.as_deref().filter(|path| !path.is_empty());
                let (text, exact) = (written.unwrap_or("/"), path.path_type == "Exact");
                let same = |other: &&Location| other.path == text && other.exact == exact;
                let Some(location) = host.locations.iter().find(same) else {
                    findings.problem(
                        &object.shown,
                        None,
                        format!(
                            "its path {text} is none of main's on {}: in ingress-nginx that \
                             disables the canary for all its paths",
                            shown(name)
                        ),
                        "use main's path and pathType exactly, or remove it",
                    );
                    continue;
                };
                let Some(alternative) = upstream(&object.shown, &path.backend, services, findings)
                else {
                    continue;
                };
                named.push((host.name.clone(), text.to_owned(), exact));
                pairs.push((location.upstream.clone(), alternative));
            }
        }
        for (main, alternative) in pairs {
            self.merge(object, policy, main, alternative, findings);
        }
        self.note_wider_effect(object, &named, findings);
    }

    /// The canary hangs on main's upstream, and only the first one counts.
    fn merge(
        &mut self,
        object: &Object<'_>,
        policy: &Policy,
        main: Upstream,
        alternative: Upstream,
        findings: &mut Findings,
    ) {
        if main == alternative {
            findings.problem(
                &object.shown,
                None,
                format!("its service {} is main's own", main.service),
                "give the canary a Service of its own",
            );
            return;
        }
        let ordinary = self
            .hosts
            .iter()
            .flat_map(|host| &host.locations)
            .find(|location| location.upstream == alternative);
        if let Some(location) = ordinary {
            findings.problem(
                &object.shown,
                None,
                format!(
                    "its service {} is an ordinary backend of {} as well, and so gets no request \
                     as a canary in ingress-nginx",
                    alternative.service, location.object
                ),
                "give the canary a Service of its own",
            );
            return;
        }
        match self.canaries.get(&main) {
            Some(other) if other.upstream == alternative && other.policy == *policy => {}
            Some(other) => findings.problem(
                &object.shown,
                None,
                format!(
                    "{} has the canary {} already, and ingress-nginx looks at the first one only",
                    main.service, other.upstream.service
                ),
                "remove this one; in an HTTPRoute a third backend can be had by its weight",
            ),
            None => {
                let upstream = alternative;
                let policy = policy.clone();
                self.canaries.insert(main, Canary { upstream, policy });
            }
        }
    }

    fn note_wider_effect(
        &self,
        object: &Object<'_>,
        named: &[(String, String, bool)],
        findings: &mut Findings,
    ) {
        for host in &self.hosts {
            for location in &host.locations {
                let key = (host.name.clone(), location.path.clone(), location.exact);
                if self.canaries.contains_key(&location.upstream)
                    && !named.contains(&key)
                    && named.iter().any(|(name, path, exact)| {
                        self.hosts.iter().any(|other| {
                            other.name == *name
                                && other.locations.iter().any(|l| {
                                    l.path == *path
                                        && l.exact == *exact
                                        && l.upstream == location.upstream
                                })
                        })
                    })
                {
                    findings.note(
                        &object.shown,
                        None,
                        format!(
                            "also takes its share of {} on {}, as in ingress-nginx, where a canary \
                             splits main's service {} wherever that is used",
                            location.path,
                            shown(&host.name),
                            location.upstream.service
                        ),
                    );
                }
            }
        }
    }

    /// A client that sticks to main never sees the canary there, and a load balancer
    /// splits first.
    pub(super) fn check_affinity(&self, findings: &mut Findings) {
        for location in self.hosts.iter().flat_map(|host| &host.locations) {
            if location.settings.affinity.is_some()
                && self.canaries.contains_key(&location.upstream)
            {
                findings.problem(
                    &location.object,
                    Some("affinity"),
                    "sticky sessions and a split by weights exclude each other on Google Cloud, \
                     where the split comes first",
                    "keep sessions in the database, or split by header alone without affinity",
                );
            }
        }
    }
}
