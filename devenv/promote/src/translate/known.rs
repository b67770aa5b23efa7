//! Annotations of ingress-nginx 1.15 that are known and not read: without meaning, or not to
//! be said, and what to do then.

/// Without meaning there, and why.
pub(super) const MEANINGLESS: &[(&[&str], &str)] = &[
    (
        &["proxy-body-size"],
        "the load balancer has no limit on bodies: what a service takes is up to the service",
    ),
    (
        &[
            "proxy-buffering",
            "proxy-request-buffering",
            "proxy-buffer-size",
            "proxy-buffers-number",
            "proxy-busy-buffers-size",
            "proxy-max-temp-file-size",
            "client-body-buffer-size",
        ],
        "nginx's buffers: the load balancer streams",
    ),
    (
        &["proxy-connect-timeout", "proxy-send-timeout"],
        "the load balancer's own and not to be set; what a whole answer may take is",
    ),
    (
        &[
            "proxy-http-version",
            "http2-push-preload",
            "relative-redirects",
        ],
        "a detail of nginx",
    ),
    (
        &["service-upstream", "load-balance"],
        "the load balancer knows the pods themselves, and chooses among them in its own way",
    ),
    (
        &[
            "enable-access-log",
            "enable-rewrite-log",
            "enable-opentelemetry",
            "opentelemetry-trust-incoming-span",
            "opentelemetry-operation-name",
            "enable-opentracing",
            "opentracing-trust-incoming-span",
        ],
        "about nginx's own logs and traces; the load balancer's are switched in its policies",
    ),
    (
        &["preserve-trailing-slash"],
        "the load balancer's redirects keep paths as they are",
    ),
];

/// Without meaning with this value alone: it says what is so anyway.
pub(super) const HARMLESS: &[(&str, &str)] = &[
    ("backend-protocol", "HTTP"),
    ("ssl-passthrough", "false"),
    ("enable-cors", "false"),
    ("affinity-canary-behavior", "sticky"),
    ("proxy-next-upstream", "error timeout"),
    ("proxy-next-upstream-tries", "3"),
    ("proxy-next-upstream-timeout", "0"),
    ("proxy-redirect-from", "off"),
    ("proxy-cookie-domain", "off"),
    ("proxy-cookie-path", "off"),
    ("enable-modsecurity", "false"),
    ("enable-global-auth", "true"),
    ("from-to-www-redirect", "false"),
    ("disable-proxy-intercept-errors", "false"),
];

/// What can't be said: prefixes of names, why, and what to do.
pub(super) const UNSAYABLE: &[(&[&str], &str, &str)] = &[
    (
        &[
            "server-snippet",
            "configuration-snippet",
            "stream-snippet",
            "auth-snippet",
        ],
        "nginx's configuration means nothing to a Gateway",
        "say what it does by the fields of HTTPRoute, or do it in the service",
    ),
    (
        &["auth-tls-"],
        "client certificates are asked for by the load balancer",
        "use GCPClientTLSPolicy beside the Gateway",
    ),
    (
        &["auth-", "enable-global-auth", "satisfy"],
        "a Gateway asks no other service whether a request may pass",
        "use Identity-Aware Proxy (iap in GCPBackendPolicy), or let the service authenticate",
    ),
    (
        &[
            "whitelist-source-range",
            "allowlist-source-range",
            "denylist-source-range",
        ],
        "addresses are no match of an HTTPRoute",
        "use a Cloud Armor policy (securityPolicy in GCPBackendPolicy)",
    ),
    (
        &["limit-", "global-rate-limit"],
        "an HTTPRoute has no limit of requests",
        "use a rate limit of Cloud Armor (securityPolicy in GCPBackendPolicy)",
    ),
    (
        &["enable-modsecurity", "modsecurity-", "enable-owasp-"],
        "ModSecurity is nginx's",
        "use Cloud Armor's preconfigured rules (securityPolicy in GCPBackendPolicy)",
    ),
    (
        &["mirror-"],
        "an HTTPRoute mirrors to a Service of the cluster, not to a URL",
        "add a RequestMirror filter with that Service to the route",
    ),
    (
        &["proxy-ssl-", "secure-"],
        "TLS to the service is said by another object",
        "use BackendTLSPolicy and appProtocol HTTPS on the Service's port",
    ),
    (
        &["backend-protocol"],
        "the protocol is the Service's",
        "set appProtocol on the Service's port (HTTPS, kubernetes.io/h2c), or use a GRPCRoute",
    ),
    (
        &["ssl-passthrough"],
        "an HTTPRoute sees HTTP, so TLS ends before it",
        "use a TLSRoute with a TLS listener in mode Passthrough",
    ),
    (
        &["ssl-ciphers", "ssl-prefer-server-ciphers"],
        "ciphers are a policy of the load balancer",
        "name an SSL policy in GCPGatewayPolicy",
    ),
    (
        &["upstream-hash-by"],
        "requests are spread by the load balancer",
        "use sessionAffinity HEADER_FIELD or CLIENT_IP in GCPBackendPolicy, without a split",
    ),
    (
        &["proxy-next-upstream"],
        "what nginx tries again, and how often, can't be set; a POST would be the trap",
        "let clients try again, with an Idempotency-Key",
    ),
    (
        &[
            "custom-http-errors",
            "default-backend",
            "disable-proxy-intercept-errors",
        ],
        "a Gateway does not replace a service's error pages",
        "let the service answer with its own",
    ),
    (
        &["custom-headers"],
        "the headers stand in a ConfigMap that a Gateway does not read",
        "write them as a ResponseHeaderModifier filter of the route",
    ),
    (
        &["connection-proxy-header"],
        "the header Connection is the load balancer's",
        "remove it",
    ),
    (
        &["proxy-cookie-", "proxy-redirect-"],
        "a Gateway does not rewrite cookies and Location headers of answers",
        "let the service say them as clients are to see them",
    ),
    (
        &["from-to-www-redirect"],
        "it stands for a second host that is redirected",
        "add an Ingress for that host with permanent-redirect",
    ),
];
