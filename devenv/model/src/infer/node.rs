//! Node.js: the package manager by its lock file, the scripts of `package.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::command::{Program, Run};
use super::{Docker, Look};
use crate::config::Command;
use crate::reading::normal;

/// A package manager, told by the file that it leaves.
struct Manager {
    lock: &'static str,
    name: &'static str,
    install: &'static [&'static str],
}

const MANAGERS: &[Manager] = &[
    Manager {
        lock: "pnpm-lock.yaml",
        name: "pnpm",
        install: &["pnpm", "install", "--frozen-lockfile"],
    },
    Manager {
        lock: "yarn.lock",
        name: "yarn",
        install: &["yarn", "install", "--frozen-lockfile"],
    },
    Manager {
        lock: "bun.lock",
        name: "bun",
        install: &["bun", "install", "--frozen-lockfile"],
    },
    Manager {
        lock: "bun.lockb",
        name: "bun",
        install: &["bun", "install", "--frozen-lockfile"],
    },
    Manager {
        lock: "package-lock.json",
        name: "npm",
        install: &["npm", "ci", "--no-audit", "--no-fund"],
    },
    Manager {
        lock: "npm-shrinkwrap.json",
        name: "npm",
        install: &["npm", "ci", "--no-audit", "--no-fund"],
    },
];

pub(super) fn infer(look: &mut Look<'_>, docker: Option<&Docker>, program: &Program) {
    let package = package(look);
    let manager = manager(look, package.as_ref());
    let source = look.known.source.to_owned();
    if let Some(package) = &package {
        install(look, package, manager.as_ref(), &source);
        build(look, docker, package, manager.as_ref(), &source);
        watch(look, package, manager.as_ref());
    }
    let name = manager.as_ref().map_or("npm", |m| m.0.name);
    match program {
        Program::Run(run) => {
            let direct = package
                .as_ref()
                .and_then(|p| script_of(&run.command, p).map(|s| (p, s)))
                .and_then(|(p, script)| Some((direct(look, p, &script)?, script)));
            let run = match direct {
                Some((command, script)) => Run {
                    entrypoint: if run.entrypoint > 0 {
                        command.argv().len()
                    } else {
                        0
                    },
                    why: format!("{}, {}", run.why, why_script(look, &script)),
                    command,
                },
                None => Run {
                    command: run.command.clone(),
                    entrypoint: run.entrypoint,
                    why: run.why.clone(),
                },
            };
            look.run_as_said(&Program::Run(run));
        }
        _ if look.wants_run() => match guess(look, package.as_ref(), name, &source) {
            Some((command, why)) => look.run(command, why),
            None => {
                let reason = format!(
                    "{} has neither scripts.start nor main",
                    look.shown_file("package.json")
                );
                look.guess.reasons.push(reason);
            }
        },
        _ => {}
    }
}

fn package(look: &mut Look<'_>) -> Option<Value> {
    let path = look.path("package.json");
    let text = look.text(&path)?;
    match serde_json::from_str::<Value>(text.text()) {
        Ok(value) => Some(value),
        Err(e) => {
            look.warn(&path, e.line(), format!("this is not JSON: {e}"));
            None
        }
    }
}

/// The package manager and its lock file: beside the source, or where a workspace that it
/// belongs to has it.
fn manager(look: &mut Look<'_>, package: Option<&Value>) -> Option<(&'static Manager, PathBuf)> {
    let root = look.reading.root.clone();
    let mut dir = look.known.source.to_owned();
    loop {
        for manager in MANAGERS {
            let lock = look.reading.asked(&dir.join(manager.lock));
            if lock.is_file() {
                return Some((manager, lock));
            }
        }
        // The source's own packageManager says that it stands alone.
        let alone = package.is_some_and(|p| p.get("packageManager").is_some());
        if dir == root || alone || !dir.pop() {
            return None;
        }
        let workspace = look.text(&dir.join("package.json")).is_some_and(|text| {
            serde_json::from_str::<Value>(text.text()).is_ok_and(|p| p.get("workspaces").is_some())
        });
        if !workspace
            && !look
                .reading
                .asked(&dir.join("pnpm-workspace.yaml"))
                .is_file()
        {
            return None;
        }
    }
}

fn install(
    look: &mut Look<'_>,
    package: &Value,
    manager: Option<&(&'static Manager, PathBuf)>,
    source: &Path,
) {
    match manager {
        Some((manager, lock)) => {
            let mut argv = manager.install.to_vec();
            if manager.name == "yarn" && is_berry(look, package, lock) {
                argv = vec!["yarn", "install", "--immutable"];
            }
            let why = format!("{} is there", look.shown(lock));
            let command = look.command_in(source, &argv);
            look.install(command, why);
        }
        None => {
            let needs = ["dependencies", "devDependencies", "optionalDependencies"];
            let any = |key: &str| {
                let list = package.get(key).and_then(Value::as_object);
                list.is_some_and(|l| !l.is_empty())
            };
            if needs.into_iter().any(any) {
                let package = look.shown_file("package.json");
                let argv = [
                    "npm",
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--no-package-lock",
                ];
                let command = look.command_in(source, &argv);
                look.install(
                    command,
                    format!("{package} has dependencies, and no lock file is there"),
                );
            }
        }
    }
}

/// Yarn from version 2 on.
fn is_berry(look: &mut Look<'_>, package: &Value, lock: &Path) -> bool {
    let named = package.get("packageManager").and_then(Value::as_str);
    if let Some(version) = named.and_then(|n| n.strip_prefix("yarn@")) {
        return !version.starts_with("1.") && !version.starts_with("0.");
    }
    let settings = lock.with_file_name(".yarnrc.yml");
    look.reading.asked(&settings).is_file()
        || look
            .text(lock)
            .is_some_and(|t| t.text().contains("\n__metadata:"))
}

fn script<'p>(package: &'p Value, name: &str) -> Option<&'p str> {
    package.get("scripts")?.get(name)?.as_str()
}

fn why_script(look: &Look<'_>, name: &str) -> String {
    format!("{} scripts.{name}", look.shown_file("package.json"))
}

/// The build that the Dockerfile runs; without one, the script of that name.
fn build(
    look: &mut Look<'_>,
    docker: Option<&Docker>,
    package: &Value,
    manager: Option<&(&'static Manager, PathBuf)>,
    source: &Path,
) {
    if script(package, "build").is_none() {
        return;
    }
    let why = match docker {
        None => why_script(look, "build"),
        Some(docker) => {
            let run = docker.image.runs.iter().find(|run| {
                let words: Vec<&str> = run.value.split(|c: char| !c.is_alphanumeric()).collect();
                words
                    .windows(2)
                    .any(|w| matches!(w, ["run" | "pnpm" | "yarn" | "bun", "build"]))
            });
            let Some(run) = run else { return };
            docker.why(run.span, "RUN")
        }
    };
    let name = manager.map_or("npm", |m| m.0.name);
    let command = look.command_in(source, &[name, "run", "build"]);
    look.build(command, why);
}

/// Packages of this project that it is linked to change with it.
fn watch(look: &mut Look<'_>, package: &Value, manager: Option<&(&'static Manager, PathBuf)>) {
    let mut more: Vec<PathBuf> = Vec::new();
    for key in ["dependencies", "devDependencies"] {
        let list = package.get(key).and_then(Value::as_object);
        for version in list.into_iter().flat_map(|l| l.values()) {
            let local = version
                .as_str()
                .and_then(|v| v.strip_prefix("file:").or_else(|| v.strip_prefix("link:")));
            if let Some(local) = local {
                more.push(normal(&look.known.source.join(local)));
            }
        }
    }
    if let Some((_, lock)) = manager
        && lock.parent() != Some(look.known.source)
    {
        more.push(lock.clone());
    }
    let package = look.shown_file("package.json");
    look.watch_also(more, &package);
}

/// The script that a command only starts: `npm start`, `yarn run serve`.
fn script_of(command: &Command, package: &Value) -> Option<String> {
    let argv = command.argv();
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let name = match words.as_slice() {
        ["npm" | "pnpm" | "yarn" | "bun", "run" | "run-script", name] => name,
        ["npm" | "pnpm" | "yarn", name @ "start"] => name,
        ["yarn", name] => name,
        _ => return None,
    };
    script(package, name).map(|_| (*name).to_owned())
}

/// What a script runs, where that is no more than `node` with arguments. It is then
/// started in a fraction of the time, and gets signals itself.
fn direct(look: &Look<'_>, package: &Value, name: &str) -> Option<Command> {
    let line = script(package, name)?;
    // Hooks around it are the package manager's.
    let hooked = script(package, &format!("pre{name}")).is_some()
        || script(package, &format!("post{name}")).is_some();
    let plain = |c: char| c.is_alphanumeric() || " ./_-=:@,+".contains(c);
    if hooked || look.workdir != look.known.source || !line.chars().all(plain) {
        return None;
    }
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    (words.first()? == "node" && words.len() > 1).then_some(Command::Argv(words))
}

/// What runs it where no Dockerfile says so.
fn guess(
    look: &mut Look<'_>,
    package: Option<&Value>,
    manager: &str,
    source: &Path,
) -> Option<(Command, String)> {
    if let Some(package) = package
        && script(package, "start").is_some()
    {
        let why = why_script(look, "start");
        let command = direct(look, package, "start")
            .unwrap_or_else(|| look.command_in(source, &[manager, "run", "start"]));
        return Some((command, why));
    }
    let main = package.and_then(|p| p.get("main")).and_then(Value::as_str);
    let (name, why) = match main {
        Some(main) => (main, format!("{} main", look.shown_file("package.json"))),
        None => {
            let names = [
                "server.js",
                "index.js",
                "app.js",
                "main.js",
                "src/index.js",
                "src/server.js",
            ];
            let name = names.into_iter().find(|name| look.path(name).is_file())?;
            (name, format!("{} is there", look.shown_file(name)))
        }
    };
    let path = look.in_workdir(&look.path(name));
    Some((Command::Argv(vec!["node".into(), path]), why))
}

/// Whether `package.json` names a package.
pub(super) fn depends_on(look: &mut Look<'_>, name: &str) -> bool {
    let path = look.path("package.json");
    let package = look
        .text(&path)
        .and_then(|t| serde_json::from_str::<Value>(t.text()).ok());
    // The programs of some packages are called otherwise.
    let name = match name {
        "tsc" => "typescript",
        "nest" => "@nestjs/cli",
        "remix-serve" => "@remix-run/serve",
        "react-router-serve" => "@react-router/serve",
        name => name,
    };
    package.is_some_and(|p| {
        ["dependencies", "devDependencies"]
            .iter()
            .any(|key| p.get(key).and_then(|list| list.get(name)).is_some())
    })
}
