//! The pod template of a workload that is debugged: the container's command, and probes
//! that leave a stopped program alone. Pure, but for looking at the program's file.

use std::path::{Path, PathBuf};

use devenv_cluster::RunSpec;
use devenv_model::{Command, ImageSource, Object};
use serde_json::{Value, json};

use super::command::{Debugger, Place, Program, Unknown, recognise};
use crate::stamp::annotate;

/// On a pod template: the container that is debugged, as JSON. Pods without it are not.
pub(crate) const DEBUG: &str = "devenv.dev/debug";
/// The variables that tell a debugger where to listen: the pod's address, and the port.
const HOST: &str = "DEVENV_DEBUG_HOST";
const PORT: &str = "DEVENV_DEBUG_PORT";
/// `failureThreshold` of probes that no pause at a breakpoint reaches.
const NEVER: i32 = 1_000_000;

/// How a workload is debugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The container.
    pub container: String,
    /// What its command is told to start.
    pub debugger: Debugger,
    /// Where that listens in the pod.
    pub port: u16,
    /// Whether the program waits for the debugger's client before its first line.
    pub wait: bool,
    /// The folder of the package, for Python.
    pub debugpy: Option<PathBuf>,
}

impl Plan {
    /// The value of [`DEBUG`].
    pub fn annotation(&self) -> String {
        json!({
            "container": self.container,
            "debugger": self.debugger,
            "port": self.port,
            "wait": self.wait,
        })
        .to_string()
    }
}

/// The container of a workload's object by its name.
pub(super) fn container<'v>(object: &'v Object, name: &str) -> Option<&'v Value> {
    let (_, spec) = object.pod_template()?;
    let spec = spec.iter().try_fold(object.value(), |v, k| v.get(*k))?;
    let all = spec["containers"].as_array()?;
    all.iter().find(|c| c["name"] == name)
}

/// What the container runs without a debugger, as a manifest's `command` would say it:
/// `$(NAME)` stands for a variable, and `$$` for a `$`.
pub(super) fn argv(container: &Value, image: &ImageSource, run: &RunSpec) -> Vec<String> {
    let words = |key: &str| -> Vec<String> {
        let list = container[key].as_array().into_iter().flatten();
        list.filter_map(|w| w.as_str().map(str::to_owned)).collect()
    };
    let of_image = |words: &[String]| -> Vec<String> {
        // The image's own words are no template.
        words.iter().map(|w| w.replace('$', "$$")).collect()
    };
    let (command, args) = (words("command"), words("args"));
    match (command.is_empty(), args.is_empty()) {
        (true, true) => of_image(&run.argv),
        (true, false) => {
            let kept = image.entrypoint.min(run.argv.len());
            [of_image(&run.argv[..kept]), args].concat()
        }
        (false, _) => [command, args].concat(),
    }
}

/// Where the container's program starts, on this machine and in the pod.
pub(super) fn folders(container: &Value, image: &ImageSource) -> (PathBuf, PathBuf) {
    let local = image.workdir.clone();
    let Some(remote) = container["workingDir"].as_str().filter(|d| !d.is_empty()) else {
        return (local.clone(), local);
    };
    let remote = PathBuf::from(remote);
    let shown = image.image_workdir.as_ref();
    match shown.and_then(|workdir| remote.strip_prefix(workdir).ok()) {
        Some(below) => (local.join(below), remote),
        // Any other path is the machine's own.
        None => (remote.clone(), remote),
    }
}

/// What the container runs.
pub(super) fn program(
    container: &Value,
    image: &ImageSource,
    run: &RunSpec,
) -> Result<Program, Unknown> {
    let (cwd, _) = folders(container, image);
    let path = run.env.iter().find(|(name, _)| name == "PATH");
    let path = match path {
        Some((_, path)) => path.clone(),
        None => std::env::var("PATH").unwrap_or_default(),
    };
    let place = Place {
        cwd: &cwd,
        path: &path,
    };
    recognise(&argv(container, image, run), place)
}

/// Changes `body`, the object as it is applied, so that its container is debugged.
///
/// # Errors
/// When what it runs now is not what `plan` was made for.
pub(super) fn dress(
    body: &mut Value,
    object: &Object,
    plan: &Plan,
    image: &ImageSource,
    run: &RunSpec,
) -> Result<(), Unknown> {
    let now = container(object, &plan.container).ok_or_else(|| {
        Unknown(format!(
            "there is no container `{}` any more",
            plan.container
        ))
    })?;
    let command = command(now, plan, image, run)?;
    let Some((metadata, spec)) = object.pod_template() else {
        return Err(Unknown("it makes no pods".to_owned()));
    };
    let found = spec.iter().try_fold(&mut *body, |v, key| v.get_mut(*key));
    let containers = found.and_then(|spec| spec["containers"].as_array_mut());
    let changed = containers
        .into_iter()
        .flatten()
        .find(|c| c["name"] == plan.container.as_str())
        .and_then(Value::as_object_mut);
    let Some(changed) = changed else {
        return Err(Unknown("it has no such container".to_owned()));
    };
    if let Some(command) = command {
        changed.insert("command".to_owned(), json!(command));
        changed.remove("args");
        let env = changed.entry("env").or_insert_with(|| json!([]));
        if let Some(env) = env.as_array_mut() {
            env.push(
                json!({"name": HOST, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
            );
            env.push(json!({"name": PORT, "value": plan.port.to_string()}));
        }
    }
    // A program that stands at a breakpoint answers no probe, and is well. They are not
    // taken away: that it begins to answer is still to be seen.
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        if let Some(probe) = changed.get_mut(probe).filter(|p| p.is_object()) {
            probe["failureThreshold"] = json!(NEVER);
        }
    }
    annotate(body, metadata, DEBUG, &plan.annotation());
    Ok(())
}

/// The container's command under the debugger; nothing where its own is left as it is.
fn command(
    container: &Value,
    plan: &Plan,
    image: &ImageSource,
    run: &RunSpec,
) -> Result<Option<Vec<String>>, Unknown> {
    let at = format!("$({HOST}):{}", plan.port);
    if let Some(debug) = &image.debug {
        let mut argv = match debug {
            // A shell has its own way with `$`.
            Command::Shell(_) => debug.argv().iter().map(|w| w.replace('$', "$$")).collect(),
            Command::Argv(argv) => argv.clone(),
        };
        if let Some(program) = argv.first_mut().filter(|p| p.contains('/')) {
            *program = image.workdir.join(&*program).display().to_string();
        }
        return Ok(Some(argv));
    }
    let now = program(container, image, run)?;
    match (plan.debugger, now) {
        (
            Debugger::Debugpy,
            Program::Python {
                mut interpreter,
                target,
            },
        ) => {
            let package = plan.debugpy.as_deref().unwrap_or(Path::new("debugpy"));
            // Breakpoints in modules that are part of the interpreter's own image are missed.
            interpreter.push("-Xfrozen_modules=off".to_owned());
            interpreter.push(package.display().to_string());
            interpreter.extend(["--listen".to_owned(), at]);
            if plan.wait {
                interpreter.push("--wait-for-client".to_owned());
            }
            Ok(Some([interpreter, target].concat()))
        }
        (Debugger::NodeInspector, Program::Node { node, rest }) => {
            let option = if plan.wait {
                format!("--inspect-brk={at}")
            } else {
                format!("--inspect={at}")
            };
            Ok(Some([vec![node, option], rest].concat()))
        }
        (Debugger::Gdbserver, Program::Native { .. }) => Ok(None),
        (debugger, _) => Err(Unknown(format!(
            "its command is no longer one for {}",
            debugger.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::project;

    const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: web
        args: ['-p', '$(P)']
        livenessProbe: {tcpSocket: {port: 80}}
        startupProbe: {tcpSocket: {port: 80}}
        readinessProbe: {tcpSocket: {port: 80}, failureThreshold: 2}
      - name: other
        image: web
        livenessProbe: {tcpSocket: {port: 81}}
";

    fn dressed(argv: &[&str], debugger: Debugger, wait: bool) -> Result<Value, Unknown> {
        let (_dir, topology) = project(MANIFEST);
        let object = topology.of_kind("apps/v1", "Deployment").next().unwrap();
        let image = ImageSource {
            entrypoint: argv.len(),
            ..topology.images()["web"].clone()
        };
        let run = RunSpec {
            argv: argv.iter().map(|w| (*w).to_owned()).collect(),
            ..RunSpec::default()
        };
        let plan = Plan {
            container: "c".to_owned(),
            debugger,
            port: 7000,
            wait,
            debugpy: Some("/v/debugpy".into()),
        };
        let mut body = object.value().clone();
        dress(&mut body, object, &plan, &image, &run).map(|()| body)
    }

    #[test]
    fn a_container_runs_under_its_debugger_and_its_neighbour_does_not() {
        let body = dressed(&["python", "-u", "a$b.py"], Debugger::Debugpy, false).unwrap();
        let spec = &body["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            spec[0]["command"],
            json!([
                "python",
                "-u",
                "-Xfrozen_modules=off",
                "/v/debugpy",
                "--listen",
                "$(DEVENV_DEBUG_HOST):7000",
                "a$$b.py",
                "-p",
                "$(P)"
            ])
        );
        assert!(spec[0].get("args").is_none());
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(spec[0][probe]["failureThreshold"], NEVER, "{probe}");
        }
        assert_eq!(spec[0]["readinessProbe"]["tcpSocket"]["port"], 80);
        assert!(spec[1]["livenessProbe"].get("failureThreshold").is_none());
        assert!(spec[1].get("command").is_none());
        let annotations = &body["spec"]["template"]["metadata"]["annotations"];
        let told: Value = serde_json::from_str(annotations[DEBUG].as_str().unwrap()).unwrap();
        assert_eq!(told["container"], "c");
        assert_eq!(told["debugger"], "debugpy");
    }

    #[test]
    fn node_waits_where_it_is_asked_to() {
        let command = |wait| {
            let body = dressed(&["node", "a.js"], Debugger::NodeInspector, wait).unwrap();
            body["spec"]["template"]["spec"]["containers"][0]["command"][1].clone()
        };
        assert_eq!(command(false), "--inspect=$(DEVENV_DEBUG_HOST):7000");
        assert_eq!(command(true), "--inspect-brk=$(DEVENV_DEBUG_HOST):7000");
    }

    #[test]
    fn another_language_than_planned_is_refused() {
        let refused = dressed(&["node", "a.js"], Debugger::Debugpy, false);
        assert!(refused.unwrap_err().0.contains("debugpy"));
    }
}
