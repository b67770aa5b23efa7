//! A small project that has one of everything, and verdicts on it.

mod coverage;
mod keys;
mod property;
mod store;
mod toolchain;
mod verification;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Mutex,
};

use devenv_e2e::outcome::{Outcome, Place, RunReport, SuiteReport, TestReport};
use devenv_model::{LoadOptions, Topology};

use crate::{
    Look, Policy, Programs, Saved, SigningKey, Store, Tree, Verdict, VerdictError, Verification,
    seal::Seal, verify,
};

const CONFIG: &str = r#"
[project]
name = "small"
namespace = "ns"
manifests = ["k8s"]

[cloudsql]
migrations = "migrations"

[image.web]
source = "app"
watch = ["app", "lib"]
ignore = ["*.log", "/data/"]
build = "cd web && npm run build && cargo build"
run = ["./run.sh"]
env = { LEVEL = "info" }

[profile.other.image.web.env]
LEVEL = "debug"
"#;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.example/web:v1
        envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: token}}]
";

/// What must never stand in a verdict.
const SECRET: &str = "hunter2-hunter2";

/// The project, outside of which its key is.
struct Project {
    folder: tempfile::TempDir,
    programs: Versions,
    database: String,
    profile: Option<String>,
    target: String,
}

/// Programs that say what a test wants.
#[derive(Default)]
struct Versions(Mutex<BTreeMap<String, String>>);

impl Versions {
    fn set(&self, program: &str, version: &str) {
        let mut versions = self.0.lock().unwrap();
        versions.insert(program.into(), version.into());
    }
}

impl Programs for Versions {
    fn version(&self, program: &str, _arguments: &[&str], _folder: &Path) -> Option<String> {
        self.0.lock().unwrap().get(program).cloned()
    }
}

impl Project {
    fn new() -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
            programs: Versions::default(),
            database: "MariaDB 10.11.19".into(),
            profile: None,
            target: "local".into(),
        };
        project.programs.set("node", "v22.1.0");
        project.programs.set("npm", "10.0.0");
        project.programs.set("cargo", "cargo 1.95.0");
        for (path, text) in [
            ("devenv.toml", CONFIG),
            ("k8s/web.yaml", DEPLOYMENT),
            (
                "k8s/cloudsql.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: cloudsql}\nspec: {ports: [{port: 3306}]}\n",
            ),
            (
                "k8s/settings.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {COLOUR: red}\n",
            ),
            (
                "k8s/token.yaml",
                &format!(
                    "apiVersion: v1\nkind: Secret\nmetadata: {{name: token}}\nstringData: {{TOKEN: {SECRET}}}\n"
                ),
            ),
            ("app/main.rs", "fn main() {}\n"),
            ("app/deep/er/page.html", "<p>hi</p>\n"),
            ("app/run.sh", "#!/bin/sh\n"),
            ("app/empty", ""),
            ("app/.gitignore", "*.tmp\nbuild/\n"),
            ("app/build/out", "made"),
            ("app/node_modules/left/pad.js", "made"),
            ("app/access.log", "left out"),
            ("app/data/rows", "left out"),
            ("lib/shared.txt", "shared\n"),
            ("migrations/0001_first.sql", "CREATE TABLE a (id INT);\n"),
            ("migrations/0002_second.sql", "CREATE TABLE b (id INT);\n"),
            ("tests/e2e/page.toml", "description = \"the page\"\n"),
            ("tests/e2e/data/body.json", "{}\n"),
            ("other/notes.txt", "not covered\n"),
        ] {
            project.write(path, text);
        }
        project.chmod("app/run.sh", 0o755);
        symlink("deep/er/page.html", project.path("app/page")).unwrap();
        project
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn topology(&self) -> Topology {
        let options = LoadOptions {
            profile: self.profile.clone(),
            ..LoadOptions::default()
        };
        Topology::load(&self.root(), &options)
            .into_result()
            .unwrap_or_else(|e| panic!("{:#?}", e.problems))
            .0
    }

    /// A look at it as it is now.
    fn tree(&self) -> Tree {
        self.look(&self.topology())
    }

    fn look(&self, topology: &Topology) -> Tree {
        Look {
            database: Some(&self.database),
            programs: &self.programs,
            ..Look::new(topology, &self.target)
        }
        .take()
        .unwrap()
    }

    fn store(&self) -> Store {
        Store::in_state(&self.path(".devenv"))
    }

    fn key(&self) -> SigningKey {
        self.key_of("me")
    }

    fn key_of(&self, who: &str) -> SigningKey {
        let folder = self.folder.path().join("config").join(who);
        SigningKey::in_folder(&folder, &self.root()).unwrap()
    }

    /// A run that went well.
    fn report(&self) -> RunReport {
        report(
            &self.target,
            self.profile.as_deref(),
            &[("it works", Outcome::Passed)],
        )
    }

    fn verdict(&self, report: &RunReport, partial: Option<&str>) -> Verdict {
        let tree = self.tree();
        judge(&tree, &tree, report, partial).unwrap()
    }

    fn save(&self, verdict: &Verdict) -> PathBuf {
        match self.store().save(verdict, &self.key()).unwrap() {
            Saved::Written(path) => path,
            Saved::Kept(path) => panic!("{} stays", path.display()),
        }
    }

    /// Tests it with success.
    fn pass(&self) -> PathBuf {
        self.save(&self.verdict(&self.report(), None))
    }

    fn verify(&self) -> Verification {
        self.verify_with(&Policy::default())
    }

    fn verify_with(&self, policy: &Policy) -> Verification {
        verify(&self.store(), &self.tree(), policy).unwrap()
    }

    /// The reasons in words.
    fn reasons(&self) -> Vec<String> {
        words(&self.verify())
    }
}

fn words(verification: &Verification) -> Vec<String> {
    verification
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// As [`Verdict::of_run`], with secrets that are hashed at no cost.
fn judge(
    before: &Tree,
    after: &Tree,
    report: &RunReport,
    partial: Option<&str>,
) -> Result<Verdict, VerdictError> {
    Verdict::sealed(
        before,
        after,
        report,
        partial,
        "0.1.0",
        Seal::with_cost(8, 1),
    )
}

/// A run of `tests/e2e/page.toml`.
fn report(target: &str, profile: Option<&str>, tests: &[(&str, Outcome)]) -> RunReport {
    let file = PathBuf::from("tests/e2e/page.toml");
    // Through JSON, so that fields that are added to the report don't matter here.
    let mut report: RunReport = serde_json::from_value(serde_json::json!({
        "id": "a1b2c3",
        "started": "2026-01-01T12:00:00Z",
        "ms": 1500,
        "ready_ms": 700,
        "target": target,
        "profile": profile,
        "suites": [],
    }))
    .unwrap();
    let tests = tests
        .iter()
        .enumerate()
        .map(|(i, (name, outcome))| TestReport {
            name: (*name).into(),
            place: Place {
                file: file.clone(),
                line: u32::try_from(i).unwrap() + 3,
            },
            outcome: *outcome,
            attempts: Vec::new(),
            reason: None,
            again: String::new(),
        });
    report.suites.push(SuiteReport {
        name: "page".into(),
        file: file.clone(),
        environment: "a1b2c3".into(),
        started_ms: 0,
        ms: 800,
        tests: tests.collect(),
        error: None,
    });
    report
}
