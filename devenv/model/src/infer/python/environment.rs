//! The virtual environment of a Python program: which files say what is in it.

use std::path::{Path, PathBuf};

use super::super::context::Place;
use super::super::{Docker, Look};
use crate::config::Requirements;
use crate::reading::normal;
use crate::topology::{PythonEnv, PythonKind};

/// An explicit `install` or `python` says how dependencies come.
pub(super) fn infer(look: &mut Look<'_>, docker: Option<&Docker>) {
    let version = version(look, docker);
    let found = match &look.known.raw.python {
        Some(Requirements::None) => None,
        Some(Requirements::Files(_)) => {
            look.guess.python = given(look).map(|env| PythonEnv { version, ..env });
            return;
        }
        None if !look.wants_install() => None,
        None => docker
            .and_then(|d| installed(look, d))
            .or_else(|| beside(look)),
    };
    let Some((mut env, why)) = found else { return };
    env.version = version;
    let shown = |p: &PathBuf| look.shown(p);
    let mut parts: Vec<String> = env.files.iter().map(shown).collect();
    parts.extend(env.packages.iter().cloned());
    look.note("python", parts.join(", "), why);
    look.guess.python = Some(env);
}

/// What devenv.toml names.
fn given(look: &mut Look<'_>) -> Option<PythonEnv> {
    let files = look.known.python.to_vec();
    let first = files.first()?;
    let dir = first.parent().unwrap_or(Path::new("/")).to_owned();
    let kind = match first.file_name().and_then(|n| n.to_str()) {
        Some("uv.lock") => PythonKind::Uv,
        Some("poetry.lock") => PythonKind::Poetry,
        Some("Pipfile" | "Pipfile.lock") => PythonKind::Pipenv,
        Some("pyproject.toml" | "setup.py") => {
            return project(look, &dir).map(|(env, _)| env);
        }
        _ => {
            return Some(requirements(look, dir, files));
        }
    };
    Some(lock(look, kind, &dir))
}

/// The version that production runs.
fn version(look: &mut Look<'_>, docker: Option<&Docker>) -> Option<String> {
    let of_image = docker.and_then(|d| {
        let bases = std::iter::once(&d.image.base).chain(d.image.other_bases.iter().rev());
        bases.into_iter().find_map(|base| {
            let image = crate::image::Reference::parse(base);
            (image.base() == "python")
                .then(|| minor(image.tag?))
                .flatten()
        })
    });
    of_image.or_else(|| {
        let text = look.text(&look.path(".python-version"))?;
        minor(text.text().trim())
    })
}

/// `3.12` of `3.12.4-slim`.
fn minor(text: &str) -> Option<String> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let plain = text.starts_with(&format!("{major}.{minor}"));
    (plain && major == "3" && !minor.is_empty()).then(|| format!("{major}.{minor}"))
}

/// What the Dockerfile installs.
fn installed(look: &mut Look<'_>, docker: &Docker) -> Option<(PythonEnv, String)> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut packages: Vec<String> = Vec::new();
    let mut why = None;
    for run in &docker.image.runs {
        for words in commands(&run.value) {
            let at = |w: &str| words.iter().position(|word| word == w);
            let tool = |names: &[&str]| names.iter().any(|n| words.iter().any(|w| w == n));
            let pip = tool(&["pip", "pip3", "pip3.12", "pip3.11"]) && at("install").is_some();
            if tool(&["uv"]) && at("sync").is_some() && look.has("uv.lock") {
                return Some((
                    lock(look, PythonKind::Uv, look.known.source),
                    docker.why(run.span, "RUN uv sync"),
                ));
            }
            if tool(&["poetry"]) && at("install").is_some() && !pip && look.has("pyproject.toml") {
                return Some((
                    lock(look, PythonKind::Poetry, look.known.source),
                    docker.why(run.span, "RUN poetry install"),
                ));
            }
            if tool(&["pipenv"]) && !pip && look.has("Pipfile") {
                return Some((
                    lock(look, PythonKind::Pipenv, look.known.source),
                    docker.why(run.span, "RUN pipenv install"),
                ));
            }
            if !pip {
                continue;
            }
            let install = at("install").map_or(0, |i| i + 1);
            let (named, inline) = pip_arguments(&words[install..]);
            let mut found = false;
            for name in named {
                let path = source_file(look, docker, &name);
                if let Some(path) = path {
                    found = true;
                    if !files.contains(&path) {
                        files.push(path);
                    }
                }
            }
            // Tools that only this build needs.
            let inline: Vec<String> = inline
                .into_iter()
                .filter(|p| {
                    ![
                        "pip",
                        "setuptools",
                        "wheel",
                        "uv",
                        "poetry",
                        "pipenv",
                        "virtualenv",
                    ]
                    .contains(&requirement_name(p))
                })
                .collect();
            found |= !inline.is_empty();
            packages.extend(inline);
            if found && why.is_none() {
                why = Some(docker.why(run.span, "RUN pip install"));
            }
        }
    }
    let why = why?;
    let dir = look.known.source.to_owned();
    let env = requirements(look, dir, files);
    Some((PythonEnv { packages, ..env }, why))
}

/// The commands of a line for a shell, each as its words, without quotes.
fn commands(line: &str) -> Vec<Vec<String>> {
    line.split(['&', ';', '|', '\n'])
        .map(|command| {
            let words = command.split_whitespace();
            words
                .map(|w| w.trim_matches(['"', '\'']).to_owned())
                .collect()
        })
        .collect()
}

/// Requirement files and packages of the arguments of `pip install`.
fn pip_arguments(words: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut files, mut packages) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-r" | "--requirement" => files.extend(words.next().cloned()),
            "-c" | "--constraint" | "-i" | "--index-url" | "--extra-index-url" | "-t"
            | "--target" | "--prefix" | "--python" | "-f" | "--find-links" | "--trusted-host"
            | "--cache-dir" | "--timeout" | "--retries" | "-e" => {
                words.next();
            }
            w => {
                if let Some(file) = w
                    .strip_prefix("--requirement=")
                    .or_else(|| w.strip_prefix("-r"))
                {
                    files.push(file.to_owned());
                } else if !w.starts_with('-') && is_requirement(w) {
                    packages.push(w.to_owned());
                }
            }
        }
    }
    (files, packages)
}

/// `name`, `name[extra]`, `name==1.2`; no path, no variable.
fn is_requirement(word: &str) -> bool {
    let name = requirement_name(word);
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.[],<>=!~*+".contains(c);
    !name.is_empty() && word.chars().all(legal) && !word.starts_with('.')
}

pub(super) fn requirement_name(word: &str) -> &str {
    let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    &word[..end.unwrap_or(word.len())]
}

/// The file of the source that a command of the build names.
fn source_file(look: &mut Look<'_>, docker: &Docker, name: &str) -> Option<PathBuf> {
    let below = name.trim_start_matches("./");
    let workdir = docker
        .image
        .workdir
        .as_ref()
        .map_or("", |w| w.value.trim_end_matches('/'));
    let absolute = if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{workdir}/{below}")
    };
    let copied = match docker.context.find(&absolute) {
        Place::Here(path) => Some(path),
        _ => None,
    };
    // Of another stage: under the same name, or beside the source.
    let base = name.rsplit('/').next().unwrap_or(name);
    let candidates = [copied, Some(look.path(below)), Some(look.path(base))];
    let found = candidates.into_iter().flatten().find(|path| path.is_file());
    found.inspect(|path| {
        look.reading.asked(path);
    })
}

/// What the files beside the source say.
fn beside(look: &mut Look<'_>) -> Option<(PythonEnv, String)> {
    for (name, kind) in [
        ("uv.lock", PythonKind::Uv),
        ("poetry.lock", PythonKind::Poetry),
        ("Pipfile", PythonKind::Pipenv),
    ] {
        if look.has(name) {
            let why = format!("{} is there", look.shown_file(name));
            return Some((lock(look, kind, look.known.source), why));
        }
    }
    if look.has("requirements.txt") {
        let file = look.path("requirements.txt");
        let why = format!("{} is there", look.shown(&file));
        let dir = look.known.source.to_owned();
        return Some((requirements(look, dir, vec![file]), why));
    }
    project(look, look.known.source)
}

/// The environment of requirement files.
fn requirements(look: &mut Look<'_>, dir: PathBuf, files: Vec<PathBuf>) -> PythonEnv {
    PythonEnv {
        kind: PythonKind::Requirements,
        dir,
        files: with_included(look, files.clone()),
        requirements: files,
        packages: Vec::new(),
        project: false,
        version: None,
    }
}

/// The environment of a lock file, or of what there is without one.
fn lock(look: &mut Look<'_>, kind: PythonKind, dir: &Path) -> PythonEnv {
    let names: &[&str] = match kind {
        PythonKind::Uv => &["pyproject.toml", "uv.lock"],
        PythonKind::Poetry => &["pyproject.toml", "poetry.lock"],
        PythonKind::Pipenv => &["Pipfile", "Pipfile.lock"],
        PythonKind::Requirements | PythonKind::Pyproject => {
            &["pyproject.toml", "setup.py", "setup.cfg"]
        }
    };
    let files = names.iter().map(|name| look.reading.asked(&dir.join(name)));
    let files = files.filter(|file| file.is_file()).collect();
    PythonEnv {
        kind,
        dir: dir.to_owned(),
        files,
        requirements: Vec::new(),
        packages: Vec::new(),
        project: is_package(look, dir),
        version: None,
    }
}

/// Whether the project in a folder can be installed: it has a build system or a
/// `setup.py`, and for Poetry, which would fail otherwise, modules of its name.
fn is_package(look: &mut Look<'_>, dir: &Path) -> bool {
    let Some(table) = toml(look, &dir.join("pyproject.toml")) else {
        return dir.join("setup.py").is_file();
    };
    if !table.contains_key("build-system") {
        return dir.join("setup.py").is_file();
    }
    let Some(poetry) = table.get("tool").and_then(|t| t.get("poetry")) else {
        return true;
    };
    let name = poetry
        .get("name")
        .or_else(|| table.get("project")?.get("name"));
    let module = name
        .and_then(|n| n.as_str())
        .unwrap_or("")
        .replace(['-', '.'], "_");
    let package_mode = poetry.get("package-mode").and_then(|m| m.as_bool());
    let has = |path: String| !module.is_empty() && dir.join(path).exists();
    package_mode != Some(false)
        && (poetry.get("packages").is_some()
            || has(module.clone())
            || has(format!("src/{module}"))
            || has(format!("{module}.py")))
}

/// A `pyproject.toml` that has dependencies, or a `setup.py`.
fn project(look: &mut Look<'_>, dir: &Path) -> Option<(PythonEnv, String)> {
    let path = dir.join("pyproject.toml");
    let setup = dir.join("setup.py");
    if let Some(table) = toml(look, &path) {
        let has = |keys: &[&str]| {
            let found = keys.iter().try_fold(&table, |t, k| t.get(*k)?.as_table());
            found.is_some()
        };
        let shown = look.shown(&path);
        let why = |what: &str| format!("{shown} has [{what}]");
        // Without a build system it is no package; only what it depends on is installed.
        if has(&["build-system"]) {
            let why = why("build-system");
            let env = lock(look, PythonKind::Pyproject, dir);
            if env.project {
                return Some((env, why));
            }
        }
        if has(&["tool", "poetry", "dependencies"]) {
            let why = why("tool.poetry.dependencies");
            return Some((lock(look, PythonKind::Poetry, dir), why));
        }
        let dependencies = table.get("project").and_then(|p| p.get("dependencies"));
        let dependencies = dependencies
            .and_then(|d| d.as_array())
            .into_iter()
            .flatten();
        let packages: Vec<String> = dependencies
            .filter_map(|d| d.as_str().map(str::to_owned))
            .collect();
        if !packages.is_empty() {
            let why = why("project");
            let env = lock(look, PythonKind::Pyproject, dir);
            return Some((PythonEnv { packages, ..env }, why));
        }
    }
    if look.reading.asked(&setup).is_file() {
        let why = format!("{} is there", look.shown(&setup));
        return Some((lock(look, PythonKind::Pyproject, dir), why));
    }
    None
}

fn toml(look: &mut Look<'_>, path: &Path) -> Option<toml::Table> {
    let text = look.text(path)?;
    match text.text().parse::<toml::Table>() {
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

/// Requirement files together with those that they include (`-r`, `-c`).
fn with_included(look: &mut Look<'_>, mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    /// A set of files that is larger includes itself under many names.
    const MAX: usize = 100;
    let mut next = 0;
    while next < files.len().min(MAX) {
        let file = files[next].clone();
        next += 1;
        let Some(text) = look.text(&file) else {
            continue;
        };
        let dir = file.parent().unwrap_or(Path::new("/")).to_owned();
        for line in text.text().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let included = match words.as_slice() {
                ["-r" | "--requirement" | "-c" | "--constraint", name, ..] => Some(*name),
                [word, ..] => ["-r", "-c", "--requirement=", "--constraint="]
                    .iter()
                    .find_map(|p| {
                        word.strip_prefix(p)
                            .filter(|n| !n.is_empty() && !n.starts_with('-'))
                    }),
                [] => None,
            };
            if let Some(name) = included.filter(|n| !n.contains("://")) {
                let path = normal(&dir.join(name));
                if path.starts_with(&look.reading.root) && !files.contains(&path) {
                    files.push(path);
                }
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("3.12-slim", Some("3.12"))]
    #[case("3.12.4", Some("3.12"))]
    #[case("3", None)]
    #[case("3-slim", None)]
    #[case("slim-3.12", None)]
    #[case("2.7", None)]
    fn versions(#[case] tag: &str, #[case] want: Option<&str>) {
        assert_eq!(minor(tag).as_deref(), want);
    }

    #[rstest]
    #[case("--no-cache-dir -r requirements.txt", &["requirements.txt"], &[])]
    #[case("-rreq/prod.txt -c c.txt", &["req/prod.txt"], &[])]
    #[case("--upgrade fastapi uvicorn[standard] 'a>=1,<2'", &[], &["fastapi", "uvicorn[standard]", "a>=1,<2"])]
    #[case("-i https://x/simple flask .", &[], &["flask"])]
    #[case("-e . $X ./dir", &[], &[])]
    fn arguments_of_pip(#[case] line: &str, #[case] files: &[&str], #[case] packages: &[&str]) {
        let words = commands(line).remove(0);
        assert_eq!(
            pip_arguments(&words),
            (
                files.iter().map(|f| (*f).to_owned()).collect(),
                packages.iter().map(|p| (*p).to_owned()).collect()
            )
        );
    }
}
