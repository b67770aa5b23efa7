//! Rust: the program of a package, in the target directory of its workspace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::command::Program;
use super::{Docker, Look};
use crate::reading::normal;

pub(super) fn infer(look: &mut Look<'_>, docker: Option<&Docker>, program: &Program) {
    let source = look.known.source.to_owned();
    let manifest = source.join("Cargo.toml");
    let Some(package) = read(look, &manifest) else {
        return;
    };
    if let Program::Run(_) = program {
        look.run_as_said(program);
    }
    let workspace = workspace(look, &source, &package);
    watch(look, &source, &package, workspace.as_deref());
    // The source may be the workspace itself, and the Dockerfile tell which of its members.
    let (dir, table) = match package.get("package") {
        Some(_) => (source.clone(), package),
        None => match member(look, docker, &source, &package) {
            Some(found) => found,
            None => {
                let reason = format!("{} names no package", look.shown(&manifest));
                look.guess.reasons.push(reason);
                return;
            }
        },
    };
    let Some(name) = table.get("package").and_then(|p| p.get("name")?.as_str()) else {
        return;
    };
    let Some((binary, why)) = binary(look, docker, program, &dir, &table, name) else {
        let reason = format!(
            "{} has no single program",
            look.shown(&dir.join("Cargo.toml"))
        );
        look.guess.reasons.push(reason);
        return;
    };
    let top = workspace.unwrap_or_else(|| source.clone());
    let target = target(look, &top);
    let made = look.as_program(&target.join("debug").join(&binary));
    let target = crate::reading::relative(&source, &target);
    let mut argv = vec!["cargo", "build"];
    if look.reading.asked(&top.join("Cargo.lock")).is_file() {
        argv.push("--locked");
    }
    // A variable of the shell that devenv is started from may lead it elsewhere.
    argv.extend(["--target-dir", &target, "-p", name, "--bin", &binary]);
    let build = look.command_in(&source, &argv);
    look.build_program(build, &made, &why);
    look.run_made(program, &[&made], &why);
}

fn read(look: &mut Look<'_>, path: &Path) -> Option<Table> {
    let text = look.text(path)?;
    match text.text().parse::<Table>() {
        Ok(table) => Some(table),
        Err(e) => {
            let (line, _) = text.line_column(e.span().map_or(0, |s| s.start));
            look.warn(
                path,
                line as usize,
                format!("this is not TOML: {}", e.message()),
            );
            None
        }
    }
}

/// The folder of the workspace that a package belongs to, within the project.
fn workspace(look: &mut Look<'_>, source: &Path, package: &Table) -> Option<PathBuf> {
    if package.get("workspace").is_some() {
        return Some(source.to_owned());
    }
    let named = package
        .get("package")
        .and_then(|p| p.get("workspace")?.as_str());
    if let Some(named) = named {
        return Some(normal(&source.join(named)));
    }
    let root = look.reading.root.clone();
    let above = source
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(&root));
    let above: Vec<PathBuf> = above.map(Path::to_owned).collect();
    above.into_iter().find(|dir| {
        read(look, &dir.join("Cargo.toml")).is_some_and(|t| t.get("workspace").is_some())
    })
}

/// The member of a workspace that the Dockerfile builds (`cargo build -p NAME`), or that
/// is called as the image.
fn member(
    look: &mut Look<'_>,
    docker: Option<&Docker>,
    source: &Path,
    workspace: &Table,
) -> Option<(PathBuf, Table)> {
    let members = workspace.get("workspace")?.get("members")?.as_array()?;
    let wanted = docker
        .and_then(|d| {
            d.image
                .runs
                .iter()
                .find_map(|r| option(&r.value, &["-p", "--package"]))
        })
        .unwrap_or_else(|| look.known.name.to_owned());
    let members: Vec<String> = members
        .iter()
        .filter_map(|m| Some(m.as_str()?.to_owned()))
        .collect();
    let mut folders: Vec<PathBuf> = Vec::new();
    for member in members {
        match member.strip_suffix("/*") {
            Some(parent) => {
                let entries = std::fs::read_dir(source.join(parent)).into_iter().flatten();
                folders.extend(entries.flatten().map(|e| e.path()));
            }
            None => folders.push(normal(&source.join(member))),
        }
    }
    folders.sort();
    folders.into_iter().find_map(|dir| {
        let table = read(look, &dir.join("Cargo.toml"))?;
        let name = table.get("package")?.get("name")?.as_str()?;
        (name == wanted).then_some((dir, table))
    })
}

/// The value of an option in `cargo build …` of a line for a shell.
fn option(line: &str, names: &[&str]) -> Option<String> {
    for command in line.split(['&', ';', '|', '\n']) {
        let words: Vec<&str> = command.split_whitespace().collect();
        if !words
            .windows(2)
            .any(|w| matches!(w, ["cargo", "build" | "install" | "b"]))
        {
            continue;
        }
        for (i, word) in words.iter().enumerate() {
            if names.contains(word) {
                return words.get(i + 1).map(|w| (*w).to_owned());
            }
            let value = names
                .iter()
                .find_map(|n| word.strip_prefix(n)?.strip_prefix('='));
            if let Some(value) = value {
                return Some(value.to_owned());
            }
        }
    }
    None
}

/// The program that is meant, and why that one.
fn binary(
    look: &mut Look<'_>,
    docker: Option<&Docker>,
    program: &Program,
    dir: &Path,
    table: &Table,
    package: &str,
) -> Option<(String, String)> {
    let manifest = look.shown(&dir.join("Cargo.toml"));
    let mut all: BTreeSet<String> = BTreeSet::new();
    for bin in table
        .get("bin")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        all.extend(bin.get("name").and_then(Value::as_str).map(str::to_owned));
    }
    let auto = table
        .get("package")
        .and_then(|p| p.get("autobins")?.as_bool());
    if auto != Some(false) {
        let main = table
            .get("bin")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let taken = main
            .filter_map(|b| b.get("path")?.as_str())
            .any(|p| p == "src/main.rs");
        if dir.join("src/main.rs").is_file() && !taken {
            all.insert(package.to_owned());
        }
        let entries = std::fs::read_dir(dir.join("src/bin")).into_iter().flatten();
        for path in entries.flatten().map(|e| e.path()) {
            let program =
                path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
            if program && let Some(stem) = path.file_stem() {
                all.insert(stem.to_string_lossy().into_owned());
            }
        }
    }
    let named = docker.and_then(|d| {
        d.image.runs.iter().find_map(|run| {
            let name = option(&run.value, &["--bin"])?;
            Some((name, d.why(run.span, "RUN cargo build")))
        })
    });
    let of_image = match program {
        Program::Made(made) => made.program.rsplit('/').next().map(str::to_owned),
        _ => None,
    };
    let default = table
        .get("package")
        .and_then(|p| p.get("default-run")?.as_str());
    let of_package = format!("{manifest} package");
    let choices = [
        named,
        default.map(|name| (name.to_owned(), format!("{manifest} default-run"))),
        of_image.map(|name| (name, of_package.clone())),
        Some((look.known.name.to_owned(), of_package.clone())),
        Some((package.to_owned(), of_package.clone())),
    ];
    let found = choices
        .into_iter()
        .flatten()
        .find(|(name, _)| all.contains(name));
    found.or_else(|| match all.iter().collect::<Vec<_>>().as_slice() {
        [one] => Some(((*one).clone(), of_package)),
        _ => None,
    })
}

/// Where cargo puts what it builds: `build.target-dir` of the nearest configuration.
fn target(look: &mut Look<'_>, top: &Path) -> PathBuf {
    let root = look.reading.root.clone();
    let dirs: Vec<PathBuf> = look
        .known
        .source
        .ancestors()
        .take_while(|dir| dir.starts_with(&root))
        .map(Path::to_owned)
        .collect();
    for dir in dirs {
        for name in [".cargo/config.toml", ".cargo/config"] {
            let Some(table) = read(look, &dir.join(name)) else {
                continue;
            };
            let said = table
                .get("build")
                .and_then(|b| b.get("target-dir")?.as_str());
            if let Some(said) = said {
                return normal(&dir.join(said));
            }
        }
    }
    top.join("target")
}

/// Packages of this project that it depends on change with it, and so do the files of
/// its workspace.
fn watch(look: &mut Look<'_>, source: &Path, package: &Table, workspace: Option<&Path>) {
    let mut more: Vec<PathBuf> = Vec::new();
    let mut shared = Table::new();
    if let Some(top) = workspace
        && let Some(table) = read(look, &top.join("Cargo.toml"))
    {
        let dependencies = table
            .get("workspace")
            .and_then(|w| w.get("dependencies")?.as_table());
        shared = dependencies.cloned().unwrap_or_default();
        if top != source {
            more.push(top.join("Cargo.toml"));
            let lock = look.reading.asked(&top.join("Cargo.lock"));
            more.extend(lock.is_file().then_some(lock));
        }
    }
    let top = workspace.unwrap_or(source);
    let mut queue = vec![(source.to_owned(), package.clone())];
    let mut seen: BTreeSet<PathBuf> = BTreeSet::from([source.to_owned()]);
    while let Some((dir, table)) = queue.pop() {
        for path in local(&dir, &table, top, &shared) {
            if !path.starts_with(&look.reading.root) || !seen.insert(path.clone()) {
                continue;
            }
            if let Some(table) = read(look, &path.join("Cargo.toml")) {
                more.push(path.clone());
                queue.push((path, table));
            }
        }
    }
    let why = look.shown(&source.join("Cargo.toml"));
    look.watch_also(more, &why);
}

/// The folders of a package's dependencies by path.
fn local(dir: &Path, table: &Table, top: &Path, shared: &Table) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let targets = table.get("target").and_then(Value::as_table);
    let tables = targets
        .into_iter()
        .flat_map(|t| t.values())
        .filter_map(Value::as_table);
    for table in std::iter::once(table).chain(tables) {
        for key in ["dependencies", "build-dependencies"] {
            let list = table.get(key).and_then(Value::as_table);
            for (name, said) in list.into_iter().flatten() {
                let inherited = said.get("workspace").and_then(Value::as_bool) == Some(true);
                let (from, said) = match shared.get(name) {
                    Some(shared) if inherited => (top, shared),
                    _ => (dir, said),
                };
                if let Some(path) = said.get("path").and_then(Value::as_str) {
                    found.push(normal(&from.join(path)));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("cargo build --release -p api1 && cp x y", Some("api1"))]
    #[case("cargo build --package=api1", Some("api1"))]
    #[case("cargo fetch -p api1", None)]
    #[case("cargo build -p", None)]
    fn packages_of_a_line(#[case] line: &str, #[case] want: Option<&str>) {
        assert_eq!(option(line, &["-p", "--package"]).as_deref(), want);
    }
}
