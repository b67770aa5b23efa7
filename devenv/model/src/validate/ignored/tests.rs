use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, Lifecycle, LifecycleHandler, Namespace, Pod, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements, Secret, SecurityContext,
    Service, ServicePort, ServiceSpec, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressClassSpec, IngressSpec};
use rstest::rstest;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{Part, table};
use crate::{LoadOptions, Topology, kinds, knative};

/// Takes the names of a type's fields from its `Deserialize` implementation.
struct Names;

#[derive(Debug)]
struct Caught(&'static [&'static str]);

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Caught {}

impl de::Error for Caught {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Caught(&[])
    }
}

impl<'de> Deserializer<'de> for Names {
    type Error = Caught;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Caught> {
        Err(Caught(&[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Caught> {
        Err(Caught(fields))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    match T::deserialize(Names) {
        Err(Caught(fields)) if !fields.is_empty() => fields,
        _ => panic!("{} is no struct", std::any::type_name::<T>()),
    }
}

fn part_at(api_version: &str, kind: &str, path: &str) -> &'static Part {
    let kind = kinds::find(api_version, kind).unwrap();
    path.split('.')
        .filter(|key| !key.is_empty())
        .fold(table::of(kind).unwrap(), |part, key| {
            let found = part.within.iter().find(|(field, _)| *field == key);
            found.unwrap_or_else(|| panic!("{key} of {path}")).1
        })
}

fn reachable(part: &'static Part, into: &mut BTreeSet<usize>) {
    if into.insert(std::ptr::from_ref(part).addr()) {
        for (_, inner) in part.within {
            reachable(inner, into);
        }
    }
}

/// A new field of Kubernetes must be decided before k8s-openapi can be updated.
#[test]
fn every_field_of_every_kind_is_decided_once() {
    const CONTAINER: &str = "spec.template.spec.containers";
    let container = |rest: &str| format!("{CONTAINER}.{rest}");
    let pod = |rest: &str| format!("spec.template.spec.{rest}");
    let of = |path: String, fields| ("apps/v1", "Deployment", path, fields);
    let kind = |version, kind, path: &str, fields| (version, kind, path.to_owned(), fields);
    let knative = |path, fields| kind("serving.knative.dev/v1", "Service", path, fields);
    let all = [
        kind("v1", "Namespace", "", fields::<Namespace>()),
        kind("v1", "ConfigMap", "", fields::<ConfigMap>()),
        kind("v1", "Secret", "", fields::<Secret>()),
        kind("v1", "Pod", "", fields::<Pod>()),
        kind("v1", "Service", "", fields::<Service>()),
        kind("v1", "Service", "spec", fields::<ServiceSpec>()),
        kind("v1", "Service", "spec.ports", fields::<ServicePort>()),
        kind(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "",
            fields::<EndpointSlice>(),
        ),
        kind(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpoints",
            fields::<Endpoint>(),
        ),
        kind(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "ports",
            fields::<EndpointPort>(),
        ),
        kind("networking.k8s.io/v1", "Ingress", "", fields::<Ingress>()),
        kind(
            "networking.k8s.io/v1",
            "Ingress",
            "spec",
            fields::<IngressSpec>(),
        ),
        kind(
            "networking.k8s.io/v1",
            "IngressClass",
            "",
            fields::<IngressClass>(),
        ),
        kind(
            "networking.k8s.io/v1",
            "IngressClass",
            "spec",
            fields::<IngressClassSpec>(),
        ),
        kind("apps/v1", "ReplicaSet", "", fields::<ReplicaSet>()),
        kind("apps/v1", "ReplicaSet", "spec", fields::<ReplicaSetSpec>()),
        of(String::new(), fields::<Deployment>()),
        of("spec".into(), fields::<DeploymentSpec>()),
        of("spec.template".into(), fields::<PodTemplateSpec>()),
        of("spec.template.spec".into(), fields::<PodSpec>()),
        of(pod("securityContext"), fields::<PodSecurityContext>()),
        of(pod("volumes"), fields::<Volume>()),
        of(pod("volumes.emptyDir"), fields::<EmptyDirVolumeSource>()),
        of(
            pod("volumes.downwardAPI"),
            fields::<DownwardAPIVolumeSource>(),
        ),
        of(
            pod("volumes.downwardAPI.items"),
            fields::<DownwardAPIVolumeFile>(),
        ),
        of(pod("volumes.projected"), fields::<ProjectedVolumeSource>()),
        of(
            pod("volumes.projected.sources"),
            fields::<VolumeProjection>(),
        ),
        of(
            pod("volumes.projected.sources.downwardAPI"),
            fields::<DownwardAPIProjection>(),
        ),
        of(CONTAINER.into(), fields::<Container>()),
        of(container("env"), fields::<EnvVar>()),
        of(container("env.valueFrom"), fields::<EnvVarSource>()),
        of(container("lifecycle"), fields::<Lifecycle>()),
        of(container("lifecycle.preStop"), fields::<LifecycleHandler>()),
        of(
            container("lifecycle.preStop.httpGet"),
            fields::<HTTPGetAction>(),
        ),
        of(container("livenessProbe"), fields::<Probe>()),
        of(
            container("livenessProbe.httpGet"),
            fields::<HTTPGetAction>(),
        ),
        of(container("ports"), fields::<ContainerPort>()),
        of(container("resources"), fields::<ResourceRequirements>()),
        of(container("securityContext"), fields::<SecurityContext>()),
        of(
            container("securityContext.capabilities"),
            fields::<Capabilities>(),
        ),
        of(container("volumeMounts"), fields::<VolumeMount>()),
        knative("", fields::<knative::Service>()),
        knative("spec", fields::<knative::ServiceSpec>()),
        knative("spec.template", fields::<knative::RevisionTemplate>()),
        knative("spec.template.spec", fields::<knative::RevisionSpec>()),
    ];
    let mut compared = BTreeSet::new();
    for (version, kind, path, fields) in all {
        let part = part_at(version, kind, &path);
        compared.insert(std::ptr::from_ref(part).addr());
        let mut decided: Vec<&str> = part.honoured.to_vec();
        decided.extend(part.within.iter().map(|(field, _)| *field));
        decided.extend(part.quiet.iter().flat_map(|(fields, _)| *fields));
        decided.extend(part.lost.iter().map(|lost| lost.field));
        decided.sort_unstable();
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        assert_eq!(decided, fields, "{kind} {path}");
        let reasons = part.quiet.iter().map(|(_, why)| *why);
        for reason in reasons.chain(part.lost.iter().map(|lost| lost.loss)) {
            assert!(reason.contains(' '), "{kind} {path}: {reason:?}");
        }
    }
    let mut parts = BTreeSet::new();
    for kind in kinds::KINDS {
        let part = table::of(kind).unwrap_or_else(|| panic!("{kind:?} is not decided"));
        reachable(part, &mut parts);
    }
    assert_eq!(compared, parts, "a part that no type was compared with");
}

/// The paths of all fields of one manifest that are warned about, the repeated ones too.
fn warned(manifest: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let manifest = manifest.replace("PROJECT", root.to_str().unwrap());
    fs::create_dir(root.join("k8s")).unwrap();
    fs::write(root.join("k8s/m.yaml"), manifest).unwrap();
    fs::write(
        root.join("devenv.toml"),
        "[project]\nname = \"p\"\nmanifests = [\"k8s\"]\n",
    )
    .unwrap();
    let loaded = Topology::load(&root, &LoadOptions::default());
    let path = |text: &str| {
        let field = text.split('`').nth(1).unwrap_or(text);
        field.split(": ").next().unwrap_or(field).to_owned()
    };
    let problems = loaded.problems.iter();
    // A mistake in a case would make it pass where nothing is expected.
    let syntax = ["manifest::wrong-type", "manifest::unknown-field"];
    if let Some(p) = problems
        .clone()
        .find(|p| syntax.contains(&p.code) || p.code.starts_with("yaml::"))
    {
        panic!("{p}");
    }
    problems
        .filter(|p| p.code == "manifest::not-emulated")
        .flat_map(|p| {
            let more = p.related.iter().map(|(_, what)| path(what));
            std::iter::once(path(&p.message)).chain(more)
        })
        .collect()
}

#[rstest]
#[case("lifecycle: {postStart: {exec: {command: [x]}}}", &["lifecycle.postStart"])]
#[case("lifecycle: {preStop: {httpGet: {port: 80}}}", &[])]
#[case("lifecycle: {preStop: {httpGet: {port: 80, scheme: HTTPS}}}", &["lifecycle.preStop.httpGet.scheme"])]
#[case("lifecycle: {preStop: {exec: {command: [sh, -c, sleep 5; x]}}}", &[])]
#[case("lifecycle: {preStop: {tcpSocket: {port: 80}}}", &["lifecycle.preStop.tcpSocket"])]
#[case("lifecycle: {preStop: {exec: {command: [/bin/sleep, '5']}}}", &[])]
#[case("lifecycle: {preStop: {sleep: {seconds: 5}}}", &[])]
#[case("lifecycle: {stopSignal: SIGQUIT}", &["lifecycle.stopSignal"])]
#[case("lifecycle: {stopSignal: SIGTERM}", &[])]
#[case("resources: {limits: {cpu: '1', memory: 1Gi}, requests: {cpu: '1'}}", &[])]
#[case("resources: {limits: {cpu: '1', nvidia.com/gpu: '1'}}", &["resources.limits"])]
#[case("readinessProbe: {grpc: {port: 80}}", &["readinessProbe.grpc"])]
#[case("livenessProbe: {httpGet: {port: 80, scheme: HTTPS}}", &["livenessProbe.httpGet.scheme"])]
#[case("startupProbe: {httpGet: {port: 80, scheme: HTTP}, initialDelaySeconds: 5}", &[])]
#[case("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]", &["env[0].valueFrom.resourceFieldRef"])]
#[case("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", &[])]
#[case("args: [x]", &[])]
#[case("command: [run], args: [fast]", &[])]
#[case("args: []", &[])]
#[case("ports: [{containerPort: 80, hostPort: 80}]", &["ports[0].hostPort"])]
#[case("stdin: true, tty: true", &["stdin", "tty"])]
#[case("stdin: false, tty: false", &[])]
#[case("securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, runAsUser: 5, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}", &[])]
#[case("securityContext: {privileged: true}", &["securityContext.privileged"])]
#[case("securityContext: {privileged: false, capabilities: {add: [CAP_CHOWN, NET_BIND_SERVICE]}}", &[])]
#[case("securityContext: {capabilities: {add: [CHOWN, NET_ADMIN]}}", &["securityContext.capabilities.add"])]
#[case("terminationMessagePath: /tmp/why", &["terminationMessagePath"])]
#[case("imagePullPolicy: Always", &[])]
fn containers(#[case] fields: &str, #[case] expected: &[&str]) {
    let paths = warned(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - {{name: c, image: i, {fields}}}\n"
    ));
    let expected: Vec<String> = expected
        .iter()
        .map(|f| format!("spec.containers[0].{f}"))
        .collect();
    assert_eq!(paths, expected);
}

#[rstest]
#[case("nodeSelector: {a: b}, tolerations: [{operator: Exists}], priorityClassName: high", &[])]
#[case("automountServiceAccountToken: false, serviceAccountName: default", &[])]
#[case("serviceAccountName: robot, serviceAccount: robot", &["serviceAccountName"])]
#[case("serviceAccount: robot", &["serviceAccount"])]
#[case("nodeName: devenv", &[])]
#[case("nodeName: gke-1", &["nodeName"])]
#[case("hostNetwork: true, hostPID: true, hostIPC: false", &["hostNetwork", "hostPID"])]
#[case("shareProcessNamespace: true, enableServiceLinks: true", &[])]
#[case("securityContext: {runAsNonRoot: true, runAsUser: 7, fsGroup: 7}", &[])]
#[case("securityContext: {supplementalGroups: [7], sysctls: []}", &["securityContext.supplementalGroups"])]
#[case("volumes: [{name: a, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: b}]", &[])]
#[case("volumes: [{name: a, hostPath: {path: PROJECT/data}}]", &[])]
#[case("volumes: [{name: a, hostPath: {path: PROJECT/../x}}]", &["volumes[0].hostPath"])]
#[case("volumes: [{name: a, hostPath: {path: /var/log}}]", &["volumes[0].hostPath"])]
#[case("volumes: [{name: a, nfs: {server: s, path: /}}, {name: b, nfs: {server: s, path: /}}]", &["volumes[0].nfs", "volumes[1].nfs"])]
#[case("volumes: [{name: a, projected: {sources: [{serviceAccountToken: {path: t}}, {downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}]}}]",
    &["volumes[0].projected.sources[0].serviceAccountToken"])]
fn pods(#[case] fields: &str, #[case] expected: &[&str]) {
    let paths = warned(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: c, image: i}}], {fields}}}\n"
    ));
    let expected: Vec<String> = expected.iter().map(|f| format!("spec.{f}")).collect();
    assert_eq!(paths, expected);
}

#[test]
fn a_template_is_put_on_the_node_whatever_it_says() {
    let paths = warned(
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec: {selector: {matchLabels: {a: b}}, \
         template: {metadata: {labels: {a: b}}, spec: {nodeName: x, containers: [{name: c, image: i, tty: true}]}}}\n",
    );
    assert_eq!(paths, ["spec.template.spec.containers[0].tty"]);
}

#[rstest]
#[case("type: ClusterIP", &[])]
#[case("type: NodePort, externalTrafficPolicy: Local", &[])]
#[case("type: LoadBalancer, loadBalancerIP: 1.2.3.4", &[])]
#[case("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}", &[])]
#[case("sessionAffinity: None", &[])]
#[case("ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack", &[])]
#[case("ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack", &["ipFamilies", "ipFamilyPolicy"])]
#[case("externalIPs: [1.2.3.4]", &["externalIPs"])]
fn services(#[case] fields: &str, #[case] expected: &[&str]) {
    let paths = warned(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{selector: {{a: b}}, ports: [{{port: 80, nodePort: 30080}}], {fields}}}\n"
    ));
    let expected: Vec<String> = expected.iter().map(|f| format!("spec.{f}")).collect();
    assert_eq!(paths, expected);
}

#[rstest]
#[case("", "TCP", false)]
#[case("", "UDP", false)]
#[case("", "SCTP", true)]
#[case("clusterIP: None, ", "SCTP", false)]
fn protocols(#[case] spec: &str, #[case] protocol: &str, #[case] lost: bool) {
    let paths = warned(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{selector: {{a: b}}, {spec}ports: [{{port: 53, protocol: {protocol}}}]}}\n"
    ));
    assert_eq!(paths, ["spec.ports[0].protocol"][..usize::from(lost)]);
}

#[rstest]
#[case("containerConcurrency: 80, timeoutSeconds: 60", "{}", "[]", &[])]
#[case("containerConcurrency: 1, timeoutSeconds: 3600", "{}", "[]",
    &["spec.template.spec.containerConcurrency", "spec.template.spec.timeoutSeconds"])]
#[case("serviceAccountName: a@b.iam", "{}", "[]", &["spec.template.spec.serviceAccountName"])]
#[case("timeoutSeconds: 300", "{autoscaling.knative.dev/minScale: '1', run.googleapis.com/sessionAffinity: 'false'}",
    "[{latestRevision: true, percent: 100}]", &[])]
#[case("timeoutSeconds: 300", "{run.googleapis.com/cloudsql-instances: 'p:r:i'}",
    "[{latestRevision: true, percent: 90}, {revisionName: old, percent: 10}]",
    &["spec.template.metadata.annotations[\"run.googleapis.com/cloudsql-instances\"]", "spec.traffic"])]
fn cloud_run(
    #[case] revision: &str,
    #[case] annotations: &str,
    #[case] traffic: &str,
    #[case] expected: &[&str],
) {
    let mut paths = warned(&format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  traffic: {traffic}\n  template:\n    \
         metadata: {{annotations: {annotations}}}\n    spec: {{containers: [{{image: i}}], {revision}}}\n"
    ));
    paths.sort();
    assert_eq!(paths, expected);
}

#[rstest]
#[case("serving.knative.dev/v1", "Service", "h2c", true)]
#[case("serving.knative.dev/v1", "Service", "http1", false)]
#[case("apps/v1", "Deployment", "h2c", false)]
fn a_port_of_cloud_run_names_a_protocol(
    #[case] api_version: &str,
    #[case] kind: &str,
    #[case] name: &str,
    #[case] lost: bool,
) {
    let paths = warned(&format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: s}}\nspec:\n  template:\n    \
         spec: {{containers: [{{image: i, ports: [{{name: {name}, containerPort: 80}}]}}]}}\n"
    ));
    let expected = ["spec.template.spec.containers[0].ports[0].name"];
    assert_eq!(paths, expected[..usize::from(lost)]);
}

#[test]
fn endpoints_of_another_sort() {
    let paths = warned(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, labels: {kubernetes.io/service-name: s}}\n\
         addressType: IPv6\nendpoints: [{addresses: ['::1'], zone: a}]\nports: [{port: 53, protocol: SCTP}]\n",
    );
    assert_eq!(paths, ["addressType", "ports[0].protocol"]);
}
