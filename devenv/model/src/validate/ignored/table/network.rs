//! Services and what stands before and behind them.

use super::{COMMON, WITH_STATUS};
use crate::validate::ignored::{Case, Lost, Part, When};

pub(super) static SERVICE: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &SERVICE_SPEC)],
    quiet: &[],
    lost: &[],
};

static SERVICE_SPEC: Part = Part {
    honoured: &[
        "allocateLoadBalancerNodePorts",
        "clusterIP",
        "clusterIPs",
        "externalName",
        "loadBalancerClass",
        "publishNotReadyAddresses",
        "selector",
        "sessionAffinity",
        "sessionAffinityConfig",
        "type",
    ],
    within: &[("ports", &SERVICE_PORT)],
    quiet: &[
        (
            &[
                "externalTrafficPolicy",
                "healthCheckNodePort",
                "loadBalancerIP",
                "loadBalancerSourceRanges",
            ],
            "node ports and load balancers listen on the project's own loopback address, which no other machine reaches",
        ),
        (
            &["internalTrafficPolicy", "trafficDistribution"],
            "there is one node: every endpoint is near",
        ),
    ],
    lost: &[
        Lost {
            field: "externalIPs",
            when: When::Set,
            loss: "nothing listens at these addresses: the Service is reached at its ClusterIP, and from outside the cluster through an Ingress",
        },
        Lost {
            field: "ipFamilies",
            when: When::If(wants_ipv6),
            loss: "the Service has an IPv4 address only",
        },
        Lost {
            field: "ipFamilyPolicy",
            when: When::Is(&["RequireDualStack"]),
            loss: "the Service has an IPv4 address only",
        },
    ],
};

fn wants_ipv6(case: &Case<'_>) -> bool {
    case.value
        .items()
        .iter()
        .any(|family| family.node.as_str() == Some("IPv6"))
}

static SERVICE_PORT: Part = Part {
    honoured: &["name", "nodePort", "port", "targetPort"],
    within: &[],
    quiet: &[(
        &["appProtocol"],
        "a ClusterIP carries bytes, and ingress-nginx looks at it neither",
    )],
    lost: &[Lost {
        field: "protocol",
        when: When::If(not_carried),
        loss: "a ClusterIP carries TCP and UDP, so packets to this port go nowhere: a Service with `clusterIP: None` leads to the pods' own addresses",
    }],
};

/// A headless Service is only a name, and pods reach each other's addresses by any protocol.
fn not_carried(case: &Case<'_>) -> bool {
    let spec = |field| case.object.node.str_at(&["spec", field]);
    let headless = spec("clusterIP") == Some("None") || spec("type") == Some("ExternalName");
    !headless && When::Not(&["TCP", "UDP"]).holds(case)
}

pub(super) static ENDPOINT_SLICE: Part = Part {
    honoured: COMMON,
    within: &[("endpoints", &ENDPOINT), ("ports", &ENDPOINT_PORT)],
    quiet: &[],
    lost: &[Lost {
        field: "addressType",
        when: When::Not(&["IPv4"]),
        loss: "nothing is sent to these endpoints: give IPv4 addresses",
    }],
};

static ENDPOINT: Part = Part {
    honoured: &["addresses", "conditions", "hostname"],
    within: &[],
    quiet: &[(
        &[
            "deprecatedTopology",
            "hints",
            "nodeName",
            "targetRef",
            "zone",
        ],
        "there is one node and one zone; they only inform",
    )],
    lost: &[],
};

static ENDPOINT_PORT: Part = Part {
    honoured: &["name", "port"],
    within: &[],
    quiet: &[(&["appProtocol"], "bytes are carried whatever they say")],
    lost: &[Lost {
        field: "protocol",
        when: When::Not(&["TCP", "UDP"]),
        loss: "nothing is sent to this port: TCP and UDP are carried",
    }],
};

pub(super) static INGRESS: Part = Part {
    honoured: WITH_STATUS,
    within: &[("spec", &INGRESS_SPEC)],
    quiet: &[],
    lost: &[],
};

static INGRESS_SPEC: Part = Part {
    honoured: &["defaultBackend", "ingressClassName", "rules"],
    within: &[],
    quiet: &[(
        &["tls"],
        "the ingress itself tells it, with the annotations that it can't serve",
    )],
    lost: &[],
};

pub(super) static INGRESS_CLASS: Part = Part {
    honoured: COMMON,
    within: &[("spec", &INGRESS_CLASS_SPEC)],
    quiet: &[],
    lost: &[],
};

static INGRESS_CLASS_SPEC: Part = Part {
    honoured: &["controller"],
    within: &[],
    quiet: &[(&["parameters"], "ingress-nginx has none either")],
    lost: &[],
};
