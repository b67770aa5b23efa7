//! Steps as they stand in a file, run against something on loopback.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{Context, Sessions, StepResult};
use crate::{environment::Environment, redact::Redactor, suite, vars::Vars};

/// A suite's only test, with `${url}` as its variable and no environment to speak of.
pub(super) struct Bench {
    pub context: Context,
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let environment = Environment {
            name: "test".into(),
            target: "local".into(),
            runtime: None,
            profile: None,
            namespace: "default".into(),
            ingress: None,
            cloud_run: BTreeMap::new(),
            database: None,
            database_control: None,
            kubeconfig: folder.path().join("kubeconfig"),
            client: kube::Client::try_from(config).unwrap(),
            exact_split: true,
            faults: false,
        };
        let run_dir = folder.path().join("run");
        let context = Context {
            vars: Vars::written([("url".to_owned(), Value::from(url))]),
            environment: Arc::new(environment),
            root: folder.path().to_owned(),
            folder: folder.path().join("tests/e2e"),
            run_dir,
            label: "suite.test.1".into(),
            deadline: Instant::now() + Duration::from_secs(120),
            sessions: Sessions::default(),
            redact: Redactor::default(),
            http: super::http_client().unwrap(),
        };
        Self { context, folder }
    }

    /// Where the run keeps what it leaves.
    pub fn run_dir(&self) -> &Path {
        &self.context.run_dir
    }

    /// Runs a step, written as in a suite's file below `[[test.step]]`.
    pub async fn step(&mut self, written: &str) -> StepResult {
        let url = self.context.vars.get("url").unwrap();
        let text = format!(
            "description = \"a test\"\n[vars]\nurl = {url}\nwhat = \"\"\n\
             [[test]]\nname = \"it\"\n[[test.step]]\n{written}\n"
        );
        let file = Path::new("tests/e2e/suite.toml");
        let suite = match suite::parse(self.folder.path(), file, text) {
            Ok(suite) => suite,
            Err(problems) => panic!("{written}: {problems:?}"),
        };
        super::run(&suite.tests[0].steps[0], &mut self.context).await
    }

    /// Runs a step that is as expected.
    pub async fn passes(&mut self, written: &str) -> StepResult {
        let result = self.step(written).await;
        assert_eq!(
            (&result.mismatches, &result.stopped),
            (&Vec::new(), &None),
            "{written}: {:?}",
            result.seen
        );
        result
    }

    /// Runs a step that is not, and gives its mismatches, a line each.
    pub async fn fails(&mut self, written: &str) -> String {
        let result = self.step(written).await;
        assert_eq!(result.stopped, None, "{written}");
        assert!(!result.mismatches.is_empty(), "{written}");
        let lines: Vec<_> = (result.mismatches.iter())
            .map(|m| format!("{}: expected {}, got {}", m.what, m.expected, m.got))
            .collect();
        lines.join("\n")
    }
}
