//! kubectl on the environment.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Context, StepResult, exec,
    program::{self, Run},
};
use crate::suite::spec::{Expect, KubectlSpec};

/// Runs kubectl with the environment's kubeconfig, in its namespace unless the arguments
/// name another.
pub async fn run(spec: &KubectlSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let mut argv = vec![
        "kubectl".to_owned(),
        format!("--namespace={}", context.environment.namespace),
    ];
    argv.extend(spec.args.iter().map(|arg| arg.0.clone()));
    let kubeconfig = context.environment.kubeconfig.display().to_string();
    let run = Run {
        argv,
        dir: context.root.clone(),
        env: BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig)]),
        stdin: spec.stdin.as_ref().map(|text| text.0.clone()),
        timeout: spec.timeout.map(Duration::from),
    };
    let limit = spec.timeout.map(|limit| limit.to_string());
    let install = Some("apt-get install kubernetes-client");
    exec::finish(program::run(run).await, expect, limit, install)
}
