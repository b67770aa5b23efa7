#!/usr/bin/env python3
"""Stands in for kube-webhook-certgen: `create` makes the Secret with a webhook's certificate,
`patch` tells the API server of whom to take it."""

import argparse
import base64
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"


def ask(method, path, body=None):
    host, port = (os.environ["KUBERNETES_SERVICE_" + name] for name in ("HOST", "PORT"))
    with open(ACCOUNT + "token", encoding="ascii") as file:
        headers = {"Authorization": "Bearer " + file.read(), "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"https://{host}:{port}{path}", data, headers, method=method)
    context = ssl.create_default_context(cafile=ACCOUNT + "ca.crt")
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return json.load(answer)


def certificate(hosts):
    """A certificate that is its own authority, and its key, in PEM."""
    names = ",".join("DNS:" + host for host in hosts)
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650"
    files = ["-keyout", "/dev/stdout", "-out", "/dev/stdout", "-subj", "/CN=" + hosts[0]]
    command = [*words.split(), *files, "-addext", "subjectAltName=" + names]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    begin = text.index(b"-----BEGIN CERTIFICATE-----")
    return text[begin:], text[:begin]


parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["create", "patch"])
for option in ("host", "namespace", "secret-name", "webhook-name", "patch-mutating", "patch-failure-policy"):
    parser.add_argument("--" + option)
given = parser.parse_args()
secrets = f"/api/v1/namespaces/{given.namespace}/secrets"
if given.command == "create":
    try:
        ask("GET", f"{secrets}/{given.secret_name}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        cert, key = (base64.b64encode(part).decode() for part in certificate(given.host.split(",")))
        ask("POST", secrets, {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": given.secret_name},
            "data": {"ca": cert, "cert": cert, "key": key},
        })
else:
    # Not there yet: the pod is started again.
    authority = ask("GET", f"{secrets}/{given.secret_name}")["data"]["ca"]
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + given.webhook_name
    webhooks = ask("GET", path)
    for webhook in webhooks["webhooks"]:
        webhook["clientConfig"]["caBundle"] = authority
        webhook["failurePolicy"] = given.patch_failure_policy
    ask("PUT", path, webhooks)
