//! A pod's status as clients see it. Pure.
//!
//! Source: kubelet's `kubelet_pods.go` (`getPhase`) and `status/generate.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::runtime::Ended;
use crate::time::format;

/// How a container's run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitRecord {
    /// Code or signal.
    pub ended: Ended,
    /// `Completed`, `Error`, `StartError` …
    pub reason: String,
    /// More about it.
    pub message: Option<String>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Which run it was.
    pub run: u64,
}

impl ExitRecord {
    /// The exit code as shells and Kubernetes count it: 128 plus the signal's number.
    pub fn code(&self) -> i32 {
        match self.ended {
            Ended::Code(code) => code,
            Ended::Signal(signal) => 128 + signal,
        }
    }
}

/// What a container does.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It does not run yet, or not again yet.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff` …
        reason: String,
        /// More about it.
        message: Option<String>,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It ended and is not started again.
    Exited(ExitRecord),
}

/// One container.
#[derive(Debug, Clone)]
pub struct ContainerView<'a> {
    /// Its specification.
    pub container: &'a Container,
    /// An init container (sidecars included).
    pub init: bool,
    /// An init container that goes on running beside the others.
    pub sidecar: bool,
    /// What it does.
    pub state: State,
    /// How its run before ended.
    pub last: Option<&'a ExitRecord>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether its startup probe passed.
    pub started: bool,
    /// How often it was started again.
    pub restarts: i64,
    /// Number of its present run.
    pub run: u64,
}

/// The condition that says what became of a pod's annotation `devenv.dev/fault`.
pub const FAULT_CONDITION: &str = "devenv.dev/Fault";

/// What became of an annotation `devenv.dev/fault`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why not all of it is in force: a word for programs.
    refused: Option<&'static str>,
    /// The annotation's text; for what is refused also why.
    message: String,
}

impl Outcome {
    /// All that this text asks for is in force.
    pub fn in_force(text: &str) -> Outcome {
        Outcome {
            refused: None,
            message: text.to_owned(),
        }
    }

    /// Some or all of it is not.
    pub fn refused(text: &str, reason: &'static str, why: &str) -> Outcome {
        Outcome {
            refused: Some(reason),
            message: format!("{text}: {why}"),
        }
    }
}

/// The pod.
#[derive(Debug)]
pub struct PodView<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerView<'a>>,
    /// Its address once it has a sandbox.
    pub ip: Option<String>,
    /// Whether its sandbox is there.
    pub has_sandbox: bool,
    /// What became of its faults, if it is to have some.
    pub fault: Option<Outcome>,
    /// When devenv took it on.
    pub taken: Timestamp,
}

/// The whole `.status`; `previous` gives unchanged conditions their times.
pub fn status(view: &PodView<'_>, previous: &Value, now: Timestamp) -> Value {
    let phase = phase(view);
    let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
    let mut status = json!({
        "phase": phase,
        "observedGeneration": view.pod.metadata.generation,
        "conditions": conditions(view, phase, previous, now),
        "hostIP": crate::controllers::node::ADDRESS,
        "hostIPs": [{"ip": crate::controllers::node::ADDRESS}],
        "startTime": format(view.taken),
        "qosClass": qos(view.pod),
        "containerStatuses": list(view, uid, false),
    });
    if view.containers.iter().any(|c| c.init) {
        status["initContainerStatuses"] = list(view, uid, true);
    }
    if let Some(ip) = &view.ip {
        status["podIP"] = json!(ip);
        status["podIPs"] = json!([{"ip": ip}]);
    }
    status
}

/// The pod's phase.
pub fn phase(view: &PodView<'_>) -> &'static str {
    let policy = view
        .pod
        .spec
        .as_ref()
        .and_then(|s| s.restart_policy.as_deref())
        .unwrap_or("Always");
    for init in view.containers.iter().filter(|c| c.init) {
        match &init.state {
            // A sidecar ends when the pod's work is done, or with the pod.
            State::Exited(exit) if exit.code() == 0 || init.sidecar => {}
            State::Exited(_) if policy == "Never" => return "Failed",
            _ if init.sidecar && init.started => {}
            _ => return "Pending",
        }
    }
    let main: Vec<&ContainerView<'_>> = view.containers.iter().filter(|c| !c.init).collect();
    let never_ran =
        |c: &&&ContainerView<'_>| matches!(c.state, State::Waiting { .. }) && c.last.is_none();
    if main.iter().any(|c| never_ran(&c)) {
        return "Pending";
    }
    if main.iter().any(|c| !matches!(c.state, State::Exited(_))) || policy == "Always" {
        return "Running";
    }
    let good = main
        .iter()
        .all(|c| matches!(&c.state, State::Exited(e) if e.code() == 0));
    if good { "Succeeded" } else { "Failed" }
}

fn conditions(view: &PodView<'_>, phase: &str, previous: &Value, now: Timestamp) -> Value {
    let ended = matches!(phase, "Succeeded" | "Failed");
    let of = |init: bool| view.containers.iter().filter(move |c| c.init == init);
    let initialized = of(true).all(|c| match &c.state {
        State::Exited(exit) => exit.code() == 0 || c.sidecar,
        _ => c.sidecar && c.started,
    });
    let unready: Vec<&str> = view
        .containers
        .iter()
        .filter(|c| !c.ready && (!c.init || c.sidecar))
        .map(|c| c.container.name.as_str())
        .collect();
    let waiting_init: Vec<&str> = of(true)
        .filter(|c| !matches!(c.state, State::Exited(_)))
        .map(|c| c.container.name.as_str())
        .collect();
    let why_not = if ended {
        let reason = if phase == "Succeeded" {
            "PodCompleted"
        } else {
            "PodFailed"
        };
        Some((reason.to_owned(), String::new()))
    } else if unready.is_empty() && initialized {
        None
    } else {
        Some((
            "ContainersNotReady".to_owned(),
            format!("containers with unready status: [{}]", unready.join(" ")),
        ))
    };
    let init_why = (!initialized).then(|| {
        (
            "ContainersNotInitialized".to_owned(),
            format!(
                "containers with incomplete status: [{}]",
                waiting_init.join(" ")
            ),
        )
    });
    let build = |kind: &str, why_not: Option<(String, String)>, is: bool| {
        let mut condition = json!({"type": kind, "status": if is { "True" } else { "False" }, "lastProbeTime": null});
        if let Some((reason, message)) = why_not {
            condition["reason"] = json!(reason);
            if !message.is_empty() {
                condition["message"] = json!(message);
            }
        }
        let before = previous["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|c| c["type"] == kind));
        let same = before.filter(|b| b["status"] == condition["status"]);
        condition["lastTransitionTime"] =
            same.map_or_else(|| json!(format(now)), |b| b["lastTransitionTime"].clone());
        condition
    };
    let ready = why_not.is_none();
    let mut all = vec![
        build("PodReadyToStartContainers", None, view.has_sandbox),
        build("Initialized", init_why, initialized),
        build("Ready", why_not.clone(), ready),
        build("ContainersReady", why_not, ready),
        build("PodScheduled", None, true),
    ];
    if let Some(Outcome { refused, message }) = &view.fault {
        let mut condition = build(FAULT_CONDITION, None, refused.is_none());
        condition["reason"] = json!(refused.unwrap_or("Imposed"));
        condition["message"] = json!(message);
        all.push(condition);
    }
    json!(all)
}

fn list(view: &PodView<'_>, uid: &str, init: bool) -> Value {
    view.containers
        .iter()
        .filter(|c| c.init == init)
        .map(|c| container_status(c, uid))
        .collect()
}

fn container_status(view: &ContainerView<'_>, uid: &str) -> Value {
    let id = |run: u64| format!("devenv://{uid}/{}/{run}", view.container.name);
    let state = match &view.state {
        State::Waiting { reason, message } => {
            let mut waiting = json!({"reason": reason});
            if let Some(message) = message {
                waiting["message"] = json!(message);
            }
            json!({"waiting": waiting})
        }
        State::Running { since } => json!({"running": {"startedAt": format(*since)}}),
        State::Exited(exit) => json!({"terminated": terminated(exit, &id(exit.run))}),
    };
    let image = view.container.image.clone().unwrap_or_default();
    let runs = matches!(view.state, State::Running { .. } | State::Exited(_));
    json!({
        "name": view.container.name,
        "image": image,
        "imageID": if runs { image.clone() } else { String::new() },
        "containerID": if runs { Some(id(view.run)) } else { view.last.map(|l| id(l.run)) },
        "ready": view.ready || (view.init && matches!(&view.state, State::Exited(e) if e.code() == 0)),
        "started": view.started && matches!(view.state, State::Running { .. }),
        "restartCount": view.restarts,
        "state": state,
        "lastState": view.last.map_or_else(|| json!({}), |last| json!({"terminated": terminated(last, &id(last.run))})),
    })
}

fn terminated(exit: &ExitRecord, id: &str) -> Value {
    let mut value = json!({
        "exitCode": exit.code(),
        "reason": exit.reason,
        "startedAt": format(exit.started),
        "finishedAt": format(exit.finished),
        "containerID": id,
    });
    if let Ended::Signal(signal) = exit.ended {
        value["signal"] = json!(signal);
    }
    if let Some(message) = &exit.message {
        value["message"] = json!(message);
    }
    value
}

fn qos(pod: &Pod) -> &'static str {
    let containers = pod.spec.iter().flat_map(|s| {
        s.containers
            .iter()
            .chain(s.init_containers.iter().flatten())
    });
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (
            resources.limits.unwrap_or_default(),
            resources.requests.unwrap_or_default(),
        );
        any |= !limits.is_empty() || !requests.is_empty();
        guaranteed &= ["cpu", "memory"].iter().all(|name| {
            limits
                .get(*name)
                .is_some_and(|limit| requests.get(*name).is_none_or(|request| request == limit))
        });
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    fn exit(ended: Ended) -> ExitRecord {
        ExitRecord {
            ended,
            reason: "Error".into(),
            message: None,
            started: at(1),
            finished: at(2),
            run: 0,
        }
    }

    fn running() -> State {
        State::Running { since: at(1) }
    }

    fn waiting() -> State {
        State::Waiting {
            reason: "CrashLoopBackOff".into(),
            message: None,
        }
    }

    fn phase_of(
        policy: &str,
        init: Option<State>,
        main: State,
        last: Option<ExitRecord>,
    ) -> String {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"restartPolicy": policy, "containers": []}}),
        )
        .expect("a pod");
        let container = Container {
            name: "c".into(),
            ..Container::default()
        };
        let view = |state: State, init: bool, last| ContainerView {
            container: &container,
            init,
            sidecar: false,
            state,
            last,
            ready: false,
            started: false,
            restarts: 0,
            run: 0,
        };
        let mut containers: Vec<ContainerView<'_>> =
            init.map(|s| view(s, true, None)).into_iter().collect();
        containers.push(view(main, false, last.as_ref()));
        phase(&PodView {
            pod: &pod,
            containers,
            ip: None,
            has_sandbox: true,
            fault: None,
            taken: at(0),
        })
        .to_owned()
    }

    #[rstest]
    #[case("Always", None, running(), None, "Running")]
    #[case("Always", None, waiting(), None, "Pending")]
    #[case("Always", None, waiting(), Some(exit(Ended::Code(1))), "Running")]
    #[case("Never", None, State::Exited(exit(Ended::Code(0))), None, "Succeeded")]
    #[case("Never", None, State::Exited(exit(Ended::Signal(9))), None, "Failed")]
    #[case(
        "OnFailure",
        None,
        State::Exited(exit(Ended::Code(0))),
        None,
        "Succeeded"
    )]
    #[case("Always", Some(running()), waiting(), None, "Pending")]
    #[case(
        "Never",
        Some(State::Exited(exit(Ended::Code(3)))),
        waiting(),
        None,
        "Failed"
    )]
    #[case(
        "Always",
        Some(State::Exited(exit(Ended::Code(0)))),
        running(),
        None,
        "Running"
    )]
    fn phases(
        #[case] policy: &str,
        #[case] init: Option<State>,
        #[case] main: State,
        #[case] last: Option<ExitRecord>,
        #[case] expected: &str,
    ) {
        assert_eq!(phase_of(policy, init, main, last), expected);
    }

    #[test]
    fn exits_are_told_truly_and_conditions_keep_their_times() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": []}}))
                .expect("a pod");
        let container = Container {
            name: "c".into(),
            image: Some("web".into()),
            ..Container::default()
        };
        let killed = exit(Ended::Signal(9));
        let view = |ready| PodView {
            pod: &pod,
            containers: vec![ContainerView {
                container: &container,
                init: false,
                sidecar: false,
                state: running(),
                last: Some(&killed),
                ready,
                started: true,
                restarts: 1,
                run: 1,
            }],
            ip: Some("10.244.0.2".into()),
            has_sandbox: true,
            fault: None,
            taken: at(0),
        };
        let first = status(&view(false), &Value::Null, at(10));
        let terminated = &first["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!(
            (
                terminated["exitCode"].as_i64(),
                terminated["signal"].as_i64()
            ),
            (Some(137), Some(9))
        );
        assert_eq!(
            first["conditions"][2]["message"],
            "containers with unready status: [c]"
        );
        let second = status(&view(true), &first, at(20));
        let ready = &second["conditions"][2];
        assert_eq!(
            (
                ready["status"].as_str(),
                ready["lastTransitionTime"].as_str()
            ),
            (Some("True"), Some("1970-01-01T00:00:20Z"))
        );
        assert_eq!(second["conditions"][4], first["conditions"][4]);
        assert_eq!(
            status(&view(true), &second, at(99)),
            second,
            "nothing new writes nothing"
        );
    }

    #[rstest]
    #[case(json!({}), "BestEffort")]
    #[case(json!({"requests": {"cpu": "1"}}), "Burstable")]
    #[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed")]
    #[case(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable")]
    fn quality_of_service(#[case] resources: Value, #[case] expected: &str) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}})).expect("a pod");
        assert_eq!(qos(&pod), expected);
    }
}
