//! Pods, what makes them, and Cloud Run services.

mod containers;
mod volumes;

use super::WITH_STATUS;
use crate::validate::ignored::{Case, Lost, Part, When};
use containers::{CONTAINER, DEVICES, LIMITS};
use volumes::VOLUME;

pub(super) static DEPLOYMENT: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &DEPLOYMENT_SPEC)],
    quiet: &[],
    lost: &[],
};

static DEPLOYMENT_SPEC: Part = Part {
    honoured: &[
        "minReadySeconds",
        "paused",
        "progressDeadlineSeconds",
        "replicas",
        "revisionHistoryLimit",
        "selector",
        "strategy",
    ],
    within: &[("template", &TEMPLATE)],
    quiet: &[],
    lost: &[],
};

pub(super) static REPLICA_SET: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &REPLICA_SET_SPEC)],
    quiet: &[],
    lost: &[],
};

static REPLICA_SET_SPEC: Part = Part {
    honoured: &["minReadySeconds", "replicas", "selector"],
    within: &[("template", &TEMPLATE)],
    quiet: &[],
    lost: &[],
};

static TEMPLATE: Part = Part {
    honoured: &["metadata"],
    within: &[("spec", &POD_SPEC)],
    quiet: &[],
    lost: &[],
};

pub(super) static POD: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &POD_SPEC)],
    quiet: &[],
    lost: &[],
};

const ACCOUNT: &str = "the pod gets no token and no cloud identity: what asks the Kubernetes API or Google Cloud as this account finds no credentials";

static POD_SPEC: Part = Part {
    honoured: &[
        "dnsConfig",
        "enableServiceLinks",
        "hostAliases",
        "hostname",
        "restartPolicy",
        "subdomain",
        "terminationGracePeriodSeconds",
    ],
    within: &[
        ("containers", &CONTAINER),
        ("initContainers", &CONTAINER),
        ("securityContext", &POD_SECURITY),
        ("volumes", &VOLUME),
    ],
    quiet: &[
        (
            &[
                "affinity",
                "nodeSelector",
                "overhead",
                "preemptionPolicy",
                "priority",
                "priorityClassName",
                "schedulerName",
                "tolerations",
                "topologySpreadConstraints",
            ],
            "there is one node and nothing competes for it: no scheduler has anything to choose",
        ),
        (
            &["automountServiceAccountToken"],
            "no pod gets a token; `serviceAccountName` says who would miss it",
        ),
        (
            &["dnsPolicy"],
            "`None` is honoured; the others get the cluster's resolver, which answers what the machine's does too",
        ),
        (
            &["imagePullSecrets"],
            "nothing is pulled: images are built from source",
        ),
        (
            &["hostUsers", "os", "runtimeClassName"],
            "they say how a container is kept apart; programs run in sandboxes of devenv's own",
        ),
        (&["resources"], LIMITS),
        (
            &["shareProcessNamespace"],
            "containers of a pod always see each other's processes, which takes nothing from them",
        ),
    ],
    lost: &[
        Lost {
            field: "activeDeadlineSeconds",
            when: When::Set,
            loss: "the pod is not ended after that time",
        },
        Lost {
            field: "ephemeralContainers",
            when: When::Set,
            loss: "they are not started",
        },
        Lost {
            field: "hostIPC",
            when: When::True,
            loss: "the pod has its own shared memory and semaphores, not the machine's",
        },
        Lost {
            field: "hostNetwork",
            when: When::True,
            loss: "the pod has an address of its own: its ports are not the machine's, and its localhost isn't either",
        },
        Lost {
            field: "hostPID",
            when: When::True,
            loss: "the pod does not see the machine's processes",
        },
        Lost {
            field: "hostnameOverride",
            when: When::Set,
            loss: "the host name in the pod is `hostname`, or the pod's name",
        },
        Lost {
            field: "nodeName",
            when: When::If(other_node),
            loss: "the only node is `devenv`, and a pod of another one is never started: leave nodeName out",
        },
        Lost {
            field: "readinessGates",
            when: When::Set,
            loss: "nothing is waited for: the pod is ready when its containers are",
        },
        Lost {
            field: "resourceClaims",
            when: When::Set,
            loss: DEVICES,
        },
        Lost {
            field: "schedulingGates",
            when: When::Set,
            loss: "nothing is waited for: the pod starts at once",
        },
        Lost {
            field: "serviceAccount",
            when: When::If(only_account),
            loss: ACCOUNT,
        },
        Lost {
            field: "serviceAccountName",
            when: When::Not(&["default"]),
            loss: ACCOUNT,
        },
        Lost {
            field: "setHostnameAsFQDN",
            when: When::True,
            loss: "the host name in the pod is the short one",
        },
    ],
};

/// Pods of a template are put on the one node whatever it says.
fn other_node(case: &Case<'_>) -> bool {
    case.object.is("v1", "Pod") && When::Not(&["devenv"]).holds(case)
}

/// The older name of `serviceAccountName`, which counts if both are there.
fn only_account(case: &Case<'_>) -> bool {
    case.holder.get("serviceAccountName").is_none() && When::Not(&["default"]).holds(case)
}

static POD_SECURITY: Part = Part {
    honoured: &["runAsGroup", "runAsNonRoot", "runAsUser"],
    within: &[],
    quiet: &[
        (
            &["appArmorProfile", "seccompProfile"],
            "they only forbid, and what they forbid a right program does not do",
        ),
        (
            &["seLinuxChangePolicy", "seLinuxOptions", "windowsOptions"],
            "they are for machines of another sort",
        ),
        (
            &["fsGroup", "fsGroupChangePolicy"],
            "the files in volumes belong to the container's user, and an emptyDir is open to all",
        ),
        (
            &["supplementalGroupsPolicy"],
            "there is no image whose groups could be added",
        ),
    ],
    lost: &[
        Lost {
            field: "supplementalGroups",
            when: When::Set,
            loss: "the program is in its own group alone",
        },
        Lost {
            field: "sysctls",
            when: When::Set,
            loss: "the pod has the machine's kernel settings",
        },
    ],
};

pub(super) static CLOUD_RUN: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &CLOUD_RUN_SPEC)],
    quiet: &[],
    lost: &[],
};

static CLOUD_RUN_SPEC: Part = Part {
    honoured: &[],
    within: &[("template", &CLOUD_RUN_TEMPLATE)],
    quiet: &[],
    lost: &[Lost {
        field: "traffic",
        when: When::If(divided),
        loss: "all requests go to the newest revision, and no tag has an address of its own",
    }],
};

static CLOUD_RUN_TEMPLATE: Part = Part {
    honoured: &["metadata"],
    within: &[("spec", &REVISION_SPEC)],
    quiet: &[],
    lost: &[],
};

static REVISION_SPEC: Part = Part {
    honoured: &[],
    within: &[("containers", &CONTAINER), ("volumes", &VOLUME)],
    quiet: &[(
        &["imagePullSecrets"],
        "nothing is pulled: images are built from source",
    )],
    lost: &[
        Lost {
            field: "containerConcurrency",
            // Above 1 it is a matter of capacity, like limits of CPU and memory.
            when: When::If(|case| case.value.node.as_i64() == Some(1)),
            loss: "an instance gets several requests at once: a program that can't take that may fail here and not in production",
        },
        Lost {
            field: "nodeSelector",
            when: When::Set,
            loss: DEVICES,
        },
        Lost {
            field: "serviceAccountName",
            when: When::Not(&["default"]),
            loss: ACCOUNT,
        },
        Lost {
            field: "timeoutSeconds",
            // A shorter one is a limit that only production enforces.
            when: When::If(|case| case.value.node.as_i64().is_some_and(|s| s > 300)),
            loss: "a request is ended when nothing comes for 300 s",
        },
    ],
};

/// Whether requests go to anything but the newest revision.
fn divided(case: &Case<'_>) -> bool {
    case.value.items().iter().any(|target| {
        target.node.get("latestRevision").and_then(|n| n.as_bool()) != Some(true)
            || target.get("tag").is_some()
    })
}
