#!/usr/bin/env python3
"""Stands in for ingress-nginx's controller: devenv's data plane at its port, and an admission
webhook that refuses snippets, as ingress-nginx does unless it is told otherwise."""

import argparse
import http.server
import json
import os
import ssl

PREFIX = "nginx.ingress.kubernetes.io/"


def review(request):
    """The answer to an AdmissionReview (admission.k8s.io/v1)."""
    metadata = (request.get("object") or {}).get("metadata") or {}
    for name in metadata.get("annotations") or {}:
        if name.startswith(PREFIX) and name.endswith("-snippet"):
            short = name[len(PREFIX):]
            message = f"{short} annotation cannot be used. Snippet directives are disabled by the Ingress administrator"
            return {"uid": request["uid"], "allowed": False, "status": {"code": 400, "message": message}}
    return {"uid": request["uid"], "allowed": True}


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {key: asked[key] for key in ("apiVersion", "kind")}
        answer["response"] = review(asked["request"])
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


parser = argparse.ArgumentParser()
parser.add_argument("--validating-webhook", required=True)
parser.add_argument("--validating-webhook-certificate", required=True)
parser.add_argument("--validating-webhook-key", required=True)
arguments, _ = parser.parse_known_args()
host, port = arguments.validating_webhook.rsplit(":", 1)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(arguments.validating_webhook_certificate, arguments.validating_webhook_key)
server = http.server.ThreadingHTTPServer((host, int(port)), Webhook)
server.socket = tls.wrap_socket(server.socket, server_side=True)
if os.fork() == 0:
    # Ends with the other one, which is PID 1.
    server.serve_forever()
listen = ["--listen=0.0.0.0:80", "--health=0.0.0.0:10254", "--grace=5"]
os.execv("/devenv", ["/devenv", "ingress-controller", *listen])
