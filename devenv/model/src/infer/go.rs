//! Go: the main package, built into `bin/`.

use std::path::{Path, PathBuf};

use super::command::Program;
use super::{Docker, Look};
use crate::reading::normal;

pub(super) fn infer(look: &mut Look<'_>, docker: Option<&Docker>, program: &Program) {
    watch(look);
    // A script of the source stands before what is built.
    if let Program::Run(_) = program {
        look.run_as_said(program);
    }
    let Some((package, tags, why)) = package(look, docker) else {
        let reason = format!(
            "neither {} nor a folder in its cmd has a single main package",
            look.shown(look.known.source)
        );
        look.guess.reasons.push(reason);
        return;
    };
    let name = look.known.name.rsplit('/').next().unwrap_or("program");
    let name: String = name
        .chars()
        .map(|c| if c == ':' { '-' } else { c })
        .collect();
    let source = look.known.source.to_owned();
    let binary = source.join("bin").join(&name);
    let output = format!("bin/{name}");
    let mut argv = vec!["go", "build"];
    if let Some(tags) = &tags {
        argv.extend(["-tags", tags]);
    }
    argv.extend(["-o", &output, &package]);
    let made = look.as_program(&binary);
    let build = look.command_in(&source, &argv);
    look.build_program(build, &made, &why);
    if look.guess.build.is_some() {
        let pattern = format!("/{output}");
        look.note("ignore", pattern.clone(), "the build writes it");
        look.guess.ignore.push(pattern);
    }
    look.run_made(program, &[&made], &why);
}

/// The package to build, its build tags, and why that one.
fn package(
    look: &mut Look<'_>,
    docker: Option<&Docker>,
) -> Option<(String, Option<String>, String)> {
    if let Some(docker) = docker {
        for run in &docker.image.runs {
            if let Some((package, tags)) = built(&run.value)
                && is_main(look, &package)
            {
                return Some((package, tags, docker.why(run.span, "RUN go build")));
            }
        }
    }
    if is_main(look, ".") {
        let why = format!("{} is there", look.shown_file("go.mod"));
        return Some((".".into(), None, why));
    }
    let mut found: Vec<String> = Vec::new();
    let entries = std::fs::read_dir(look.path("cmd")).ok()?;
    for name in entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
    {
        let package = format!("./cmd/{name}");
        if is_main(look, &package) {
            found.push(package);
        }
    }
    let own = format!("./cmd/{}", look.known.name);
    let package = match found.as_slice() {
        [one] => one.clone(),
        many if many.contains(&own) => own,
        _ => return None,
    };
    let why = format!("{} is a main package", look.shown(&look.path(&package)));
    Some((package, None, why))
}

/// Package and tags of a `go build` or `go install` in a line for a shell.
fn built(line: &str) -> Option<(String, Option<String>)> {
    for command in line.split(['&', ';', '|', '\n']) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let Some(at) = words
            .windows(2)
            .position(|w| matches!(w, ["go", "build" | "install"]))
        else {
            continue;
        };
        let (mut package, mut tags) = (None, None);
        let mut rest = words[at + 2..].iter();
        while let Some(word) = rest.next() {
            match *word {
                "-tags" | "--tags" => tags = rest.next().map(|t| plain(t)),
                "-o" | "-ldflags" | "-gcflags" | "-asmflags" | "-mod" | "-p" | "-buildmode" => {
                    skip_value(&mut rest);
                }
                w if w.starts_with("-tags=") => tags = Some(plain(&w[6..])),
                // A quoted value of several words.
                w if w.starts_with('-') => {
                    let open = w.split_once('=').is_some_and(|(_, v)| is_open(v));
                    if open {
                        rest.by_ref().find(|w| w.ends_with(['"', '\'']));
                    }
                }
                w => package = Some(w.trim_matches(['"', '\'']).to_owned()),
            }
        }
        return Some((package.unwrap_or_else(|| ".".into()), tags));
    }
    None
}

fn plain(word: &str) -> String {
    word.trim_matches(['"', '\'']).to_owned()
}

/// A quote that begins here and doesn't end here.
fn is_open(word: &str) -> bool {
    word.starts_with(['"', '\'']) && !(word.len() > 1 && word.ends_with(['"', '\'']))
}

fn skip_value<'w>(rest: &mut impl Iterator<Item = &'w &'w str>) {
    if let Some(value) = rest.next()
        && is_open(value)
    {
        rest.find(|w| w.ends_with(['"', '\'']));
    }
}

/// Whether a folder, or the file of that name, belongs to a main package.
fn is_main(look: &Look<'_>, package: &str) -> bool {
    let path = look.path(package);
    if !path.starts_with(&look.reading.root) {
        return false;
    }
    if path.is_file() {
        return has_main(look, &path);
    }
    let Ok(entries) = std::fs::read_dir(&path) else {
        return false;
    };
    entries.flatten().map(|e| e.path()).any(|file| {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        name.ends_with(".go") && !name.ends_with("_test.go") && has_main(look, &file)
    })
}

fn has_main(look: &Look<'_>, file: &Path) -> bool {
    look.reading
        .peek(file)
        .is_some_and(|text| text.lines().any(|l| l.trim_end() == "package main"))
}

/// Modules of this project that replace others change with it.
fn watch(look: &mut Look<'_>) {
    let Some(text) = look.text(&look.path("go.mod")) else {
        return;
    };
    let local = text.text().lines().filter_map(|line| {
        let (_, path) = line.split_once("=>")?;
        let path = path.split_whitespace().next()?;
        path.starts_with("../")
            .then(|| normal(&look.known.source.join(path)))
    });
    let local: Vec<PathBuf> = local.collect();
    let why = look.shown_file("go.mod");
    look.watch_also(local, &why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("go build", Some((".", None)))]
    #[case("CGO_ENABLED=0 go build -o /app ./cmd/api", Some(("./cmd/api", None)))]
    #[case("cd x && go build -tags netgo -ldflags=\"-s -w\" -o a .", Some((".", Some("netgo"))))]
    #[case("go build -ldflags '-s -w' ./x", Some(("./x", None)))]
    #[case("go build -tags=a,b main.go", Some(("main.go", Some("a,b"))))]
    #[case("go install ./...; echo", Some(("./...", None)))]
    #[case("go mod download", None)]
    #[case("go build -ldflags '", Some((".", None)))]
    fn what_is_built(#[case] line: &str, #[case] want: Option<(&str, Option<&str>)>) {
        let got = built(line);
        assert_eq!(got.as_ref().map(|(p, t)| (p.as_str(), t.as_deref())), want);
    }
}
