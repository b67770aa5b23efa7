//! Python: the program where the Dockerfile says nothing about it.

mod environment;

use super::command::{Program, Run};
use super::{Docker, Look};
use crate::config::Command;

pub(super) const MARKERS: &[&str] = &[
    "requirements.txt",
    "pyproject.toml",
    "uv.lock",
    "Pipfile",
    "setup.py",
    "manage.py",
    "main.py",
    "app.py",
];

/// Where an application's object or main program is usually kept.
const PROGRAMS: &[&str] = &[
    "main.py",
    "app.py",
    "app/main.py",
    "src/main.py",
    "app/app.py",
    "src/app.py",
    "server.py",
    "api.py",
    "asgi.py",
    "wsgi.py",
    "run.py",
];

pub(super) fn infer(look: &mut Look<'_>, docker: Option<&Docker>, program: &Program) {
    environment::infer(look, docker);
    match program {
        Program::Run(run) => {
            let run = Run {
                command: found(look, run.command.clone()),
                entrypoint: run.entrypoint,
                why: run.why.clone(),
            };
            look.run_as_said(&Program::Run(run));
        }
        _ if look.wants_run() => {
            if let Some((command, why)) = guess(look) {
                let command = found(look, command);
                look.run(command, why);
            } else {
                let reason = format!(
                    "none of {} has a FastAPI or Flask application, and there is no main.py, app.py or manage.py",
                    PROGRAMS[..4].join(", ")
                );
                look.guess.reasons.push(reason);
            }
        }
        _ => {}
    }
}

/// Outside of virtual environments, many systems call the interpreter `python3` only.
fn found(look: &Look<'_>, command: Command) -> Command {
    if look.guess.python.is_some() {
        return command;
    }
    match command {
        Command::Argv(mut argv) => {
            if argv.first().is_some_and(|p| p == "python") {
                argv[0] = "python3".into();
            }
            Command::Argv(argv)
        }
        Command::Shell(line) => Command::Shell(match line.strip_prefix("python ") {
            Some(rest) => format!("python3 {rest}"),
            None => line,
        }),
    }
}

/// What runs it where no Dockerfile says so.
fn guess(look: &mut Look<'_>) -> Option<(Command, String)> {
    let port = |look: &Look<'_>, default: u16| {
        let exposed = look.guess.exposed.first().map(|p| p.value);
        format!(
            "${{PORT:-{}}}",
            look.known.port.or(exposed).unwrap_or(default)
        )
    };
    if look.has("manage.py") {
        let why = format!("{} is Django's", look.shown_file("manage.py"));
        let program = look.in_workdir(&look.path("manage.py"));
        let line = format!(
            "exec python {program} runserver --noreload 0.0.0.0:{}",
            port(look, 8000)
        );
        return Some((Command::Shell(line), why));
    }
    for name in PROGRAMS {
        // Source code is watched as such.
        let Some(text) = look.reading.peek(&look.path(name)) else {
            continue;
        };
        let module = name.trim_end_matches(".py").replace('/', ".");
        if let Some((line, app)) = object(&text, &["FastAPI", "Starlette", "Litestar"]) {
            let why = format!(
                "{}:{line} makes the application {app}",
                look.shown_file(name)
            );
            let port = port(look, 8000);
            let line = format!("exec uvicorn {module}:{app} --host 0.0.0.0 --port {port}");
            return Some((in_source(look, line), why));
        }
        if let Some((line, app)) = object(&text, &["Flask"]) {
            let why = format!(
                "{}:{line} makes the application {app}",
                look.shown_file(name)
            );
            let port = port(look, 5000);
            let line = if requires(look, "gunicorn") {
                format!("exec gunicorn --bind 0.0.0.0:{port} {module}:{app}")
            } else {
                format!("exec flask --app {module}:{app} run --host 0.0.0.0 --port {port}")
            };
            return Some((in_source(look, line), why));
        }
    }
    let programs = ["main.py", "app.py", "server.py", "run.py", "__main__.py"];
    let name = programs
        .into_iter()
        .find(|name| look.path(name).is_file())?;
    let why = format!("{} is there", look.shown_file(name));
    let path = look.in_workdir(&look.path(name));
    Some((Command::Argv(vec!["python".into(), path]), why))
}

/// Modules are found from the source's own folder.
fn in_source(look: &Look<'_>, line: String) -> Command {
    if look.workdir == look.known.source {
        return Command::Shell(line);
    }
    let cd = Command::Argv(vec!["cd".into(), look.in_workdir(look.known.source)]);
    Command::Shell(format!("{cd} && {line}"))
}

/// The first `name = Class(` that stands at the beginning of a line, with that line's
/// number.
fn object(text: &str, classes: &[&str]) -> Option<(usize, String)> {
    text.lines().enumerate().find_map(|(i, line)| {
        let (name, value) = line.split_once('=')?;
        // With a type, as in `app: FastAPI = FastAPI()`.
        let name = name.split(':').next().unwrap_or("").trim_end();
        let identifier = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let value = value.trim_start();
        // `fastapi.FastAPI(` as well.
        let call = value.split('(').next().filter(|c| c.len() < value.len())?;
        let class = call.trim_end().rsplit('.').next().unwrap_or("");
        (identifier && classes.contains(&class)).then(|| (i + 1, name.to_owned()))
    })
}

/// Whether the environment's files or packages name a package.
fn requires(look: &Look<'_>, package: &str) -> bool {
    let Some(env) = &look.guess.python else {
        return false;
    };
    env.packages
        .iter()
        .any(|p| environment::requirement_name(p) == package)
        || env.files.iter().any(|file| {
            let text = look.reading.peek(file);
            text.is_some_and(|t| t.lines().any(|l| l.contains(package)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("app = FastAPI()", Some((1, "app")))]
    #[case("import x\n\napi: FastAPI = fastapi.FastAPI(title=\"a\")", Some((3, "api")))]
    #[case("app = FastAPI(\n  title=1)", Some((1, "app")))]
    #[case("    app = FastAPI()", None)]
    #[case("# app = FastAPI()", None)]
    #[case("app = FastAPIs()", None)]
    #[case("app = FastAPI", None)]
    #[case("x == FastAPI()", None)]
    fn application_objects(#[case] text: &str, #[case] want: Option<(usize, &str)>) {
        let got = object(text, &["FastAPI"]);
        assert_eq!(got.as_ref().map(|(l, n)| (*l, n.as_str())), want);
    }
}
