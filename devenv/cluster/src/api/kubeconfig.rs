//! The file through which kubectl, k9s and kube-rs find the cluster.

use std::net::SocketAddr;

use super::tls::Identity;

/// The kubeconfig's text: one cluster, one user, one context, which is the current one.
pub(super) fn text(
    project: &str,
    namespace: &str,
    address: SocketAddr,
    identity: &Identity,
) -> String {
    let name = quote(&format!("devenv-{project}"));
    format!(
        "# Written by devenv at every start.\n\
         apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {name}\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {authority}\n\
         users:\n\
         - name: {name}\n  user:\n    token: {token}\n\
         contexts:\n\
         - name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    namespace: {namespace}\n\
         current-context: {name}\n",
        authority = identity.authority_data(),
        token = quote(&identity.token),
        namespace = quote(namespace),
    )
}

/// A double-quoted YAML string, which is JSON's.
fn quote(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
