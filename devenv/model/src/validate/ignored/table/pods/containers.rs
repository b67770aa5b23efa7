//! Containers.

use crate::validate::ignored::{Case, Lost, Part, When};

pub(super) const LIMITS: &str =
    "they only take away: a program that keeps within them in production does so here";
pub(super) const DEVICES: &str = "no such device is given to the pod";
const NOT_STARTED: &str =
    "the container is not started: give the variable a `value` in a local overlay";

pub(super) static CONTAINER: Part = Part {
    honoured: &[
        "args",
        "command",
        "envFrom",
        "image",
        "name",
        "restartPolicy",
        "workingDir",
    ],
    within: &[
        ("env", &ENV),
        ("lifecycle", &LIFECYCLE),
        ("livenessProbe", &PROBE),
        ("ports", &PORT),
        ("readinessProbe", &PROBE),
        ("resources", &RESOURCES),
        ("securityContext", &SECURITY),
        ("startupProbe", &PROBE),
        ("volumeMounts", &MOUNT),
    ],
    quiet: &[
        (
            &["imagePullPolicy"],
            "nothing is pulled: images are built from source",
        ),
        (&["resizePolicy"], LIMITS),
        (
            &["stdinOnce"],
            "it is about who attaches to the input that `stdin` speaks of",
        ),
        (
            &["terminationMessagePolicy"],
            "the log it would copy from is kept",
        ),
    ],
    lost: &[
        Lost {
            field: "restartPolicyRules",
            when: When::Set,
            loss: "`restartPolicy` alone decides, whatever the exit code",
        },
        Lost {
            field: "stdin",
            when: When::True,
            loss: "the program finds its standard input at its end: one that waits there for commands ends at once",
        },
        Lost {
            field: "terminationMessagePath",
            when: When::Not(&["/dev/termination-log"]),
            loss: "what the program writes there does not get into the pod's status",
        },
        Lost {
            field: "tty",
            when: When::True,
            loss: "the program's output is a pipe, no terminal",
        },
        Lost {
            field: "volumeDevices",
            when: When::Set,
            loss: "no block device appears in the container",
        },
    ],
};

static ENV: Part = Part {
    honoured: &["name", "value"],
    within: &[("valueFrom", &ENV_SOURCE)],
    quiet: &[],
    lost: &[],
};

static ENV_SOURCE: Part = Part {
    honoured: &["configMapKeyRef", "fieldRef", "secretKeyRef"],
    within: &[],
    quiet: &[],
    lost: &[
        Lost {
            field: "fileKeyRef",
            when: When::Set,
            loss: NOT_STARTED,
        },
        Lost {
            field: "resourceFieldRef",
            when: When::Set,
            loss: NOT_STARTED,
        },
    ],
};

static LIFECYCLE: Part = Part {
    honoured: &[],
    within: &[("preStop", &PRE_STOP)],
    quiet: &[],
    lost: &[
        Lost {
            field: "postStart",
            when: When::Set,
            loss: "the hook is not run",
        },
        Lost {
            field: "stopSignal",
            when: When::Not(&["SIGTERM"]),
            loss: "the program gets SIGTERM instead",
        },
    ],
};

const NOT_RUN: &str = "the hook is not run: the program gets its SIGTERM without it";

static PRE_STOP: Part = Part {
    honoured: &["exec", "sleep"],
    within: &[("httpGet", &HOOK_GET)],
    quiet: &[],
    lost: &[Lost {
        field: "tcpSocket",
        when: When::Set,
        loss: NOT_RUN,
    }],
};

static HOOK_GET: Part = Part {
    honoured: &["host", "httpHeaders", "path", "port"],
    within: &[],
    quiet: &[],
    lost: &[Lost {
        field: "scheme",
        when: When::Is(&["HTTPS"]),
        loss: NOT_RUN,
    }],
};

const NOT_ASKED: &str = "the probe is not asked, so as readiness or startup probe it never passes and the container never gets ready: use httpGet with HTTP, or tcpSocket, in a local overlay";

static PROBE: Part = Part {
    honoured: &[
        "exec",
        "failureThreshold",
        "periodSeconds",
        "successThreshold",
        "tcpSocket",
        "terminationGracePeriodSeconds",
        "timeoutSeconds",
    ],
    within: &[("httpGet", &HTTP_GET)],
    quiet: &[(
        &["initialDelaySeconds"],
        "who waits for a container asks it sooner here, and no failure counts the sooner",
    )],
    lost: &[Lost {
        field: "grpc",
        when: When::Set,
        loss: NOT_ASKED,
    }],
};

static HTTP_GET: Part = Part {
    honoured: &["host", "httpHeaders", "path", "port"],
    within: &[],
    quiet: &[],
    lost: &[Lost {
        field: "scheme",
        when: When::Is(&["HTTPS"]),
        loss: NOT_ASKED,
    }],
};

static PORT: Part = Part {
    honoured: &["containerPort", "protocol"],
    within: &[],
    quiet: &[(&["hostIP"], "it goes with `hostPort`")],
    lost: &[
        Lost {
            field: "hostPort",
            when: When::Set,
            loss: "the port is not opened at the machine's address: an Ingress leads in from there",
        },
        Lost {
            field: "name",
            when: When::If(chooses_http2),
            loss: "requests come in as HTTP/1.1, which a program that speaks HTTP/2 alone does not understand",
        },
    ],
};

/// To Cloud Run, the name of a port is also the protocol of the requests to it.
fn chooses_http2(case: &Case<'_>) -> bool {
    case.object.is("serving.knative.dev/v1", "Service") && When::Is(&["h2c"]).holds(case)
}

static RESOURCES: Part = Part {
    honoured: &[],
    within: &[],
    quiet: &[(
        &["requests"],
        "that of CPU is the pod's weight where the machine allows it; nothing competes for the node's memory",
    )],
    lost: &[
        Lost {
            field: "claims",
            when: When::Set,
            loss: DEVICES,
        },
        Lost {
            field: "limits",
            // Those of CPU and memory are enforced where the machine allows it, which the
            // node says if not; that of disk is quiet: see LIMITS.
            when: When::If(|case| case.value.node.entries().iter().any(|e| is_device(&e.key))),
            loss: DEVICES,
        },
    ],
};

/// Resources of device plugins have a domain of their own: `nvidia.com/gpu`.
fn is_device(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io")
}

static SECURITY: Part = Part {
    honoured: &["runAsGroup", "runAsNonRoot", "runAsUser"],
    within: &[("capabilities", &CAPABILITIES)],
    quiet: &[
        (
            &["appArmorProfile", "seccompProfile"],
            "they only forbid, and what they forbid a right program does not do",
        ),
        (
            &["readOnlyRootFilesystem"],
            "the machine's folders are read-only in every pod; its own /tmp, /run and /etc stay writable, which takes nothing away",
        ),
        (
            &["seLinuxOptions", "windowsOptions"],
            "they are for machines of another sort",
        ),
    ],
    lost: &[
        Lost {
            field: "allowPrivilegeEscalation",
            // `false` is how every pod runs.
            when: When::True,
            loss: "programs such as sudo gain nothing from their set-user-id bit",
        },
        Lost {
            field: "privileged",
            when: When::True,
            loss: "the program has an ordinary container's capabilities and none of the machine's devices",
        },
        Lost {
            field: "procMount",
            when: When::Not(&["Default"]),
            loss: "kernel settings in /proc stay read-only",
        },
    ],
};

static CAPABILITIES: Part = Part {
    honoured: &[],
    within: &[],
    quiet: &[(
        &["drop"],
        "it only takes away; and who is not root has none here anyway",
    )],
    lost: &[Lost {
        field: "add",
        when: When::If(beyond_granted),
        loss: "the program does not get what an ordinary container doesn't have",
    }],
};

fn beyond_granted(case: &Case<'_>) -> bool {
    case.value
        .items()
        .iter()
        .filter_map(|item| item.node.as_str())
        .any(|name| !GRANTED.contains(&name.strip_prefix("CAP_").unwrap_or(name)))
}

/// What root in a container may do here, as the sandbox grants it. Low ports are open to
/// every user.
const GRANTED: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

static MOUNT: Part = Part {
    honoured: &[
        "mountPath",
        "name",
        "readOnly",
        "recursiveReadOnly",
        "subPath",
        "subPathExpr",
    ],
    within: &[],
    quiet: &[],
    lost: &[Lost {
        field: "mountPropagation",
        when: When::Not(&["None"]),
        loss: "what is mounted below it later stays on its own side",
    }],
};
