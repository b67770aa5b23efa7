//! What runs a program under its language's debugger. Pure, but for looking at the
//! program's file.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a debugger's client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Debugger {
    /// Python: the Debug Adapter Protocol.
    Debugpy,
    /// Node.js: the inspector protocol.
    NodeInspector,
    /// A machine program: GNU gdbserver, for gdb. lldb 14 takes its breakpoints for
    /// plain signals, and goes on from the wrong address.
    Gdbserver,
    /// What `debug` of `[image.NAME]` starts.
    Custom,
}

impl Debugger {
    /// Where clients expect it.
    pub fn port(self) -> u16 {
        match self {
            Self::Debugpy => 5678,
            Self::NodeInspector => 9229,
            Self::Gdbserver => 2345,
            Self::Custom => 4711,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debugpy => "debugpy",
            Self::NodeInspector => "the Node.js inspector",
            Self::Gdbserver => "gdbserver",
            Self::Custom => "what [image.NAME] debug starts",
        }
    }

    /// What a command that somebody wrote by hand starts.
    pub(super) fn of_custom(argv: &[String]) -> Self {
        let names = |what: &str| argv.iter().any(|word| word.contains(what));
        if names("debugpy") {
            Self::Debugpy
        } else if names("--inspect") {
            Self::NodeInspector
        } else if names("gdbserver") {
            Self::Gdbserver
        } else {
            Self::Custom
        }
    }
}

/// A program whose language is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    Python {
        /// The interpreter and its own options.
        interpreter: Vec<String>,
        /// `-m MODULE`, `-c CODE` or a file, and the program's arguments.
        target: Vec<String>,
    },
    Node {
        node: String,
        /// Node's options, the script and its arguments.
        rest: Vec<String>,
    },
    Native {
        file: PathBuf,
    },
}

/// Why it is not known; a part of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown(pub String);

/// Where programs are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The working directory.
    pub cwd: &'a Path,
    /// `PATH`.
    pub path: &'a str,
}

impl Place<'_> {
    fn find(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            return Some(self.cwd.join(program)).filter(|p| p.is_file());
        }
        let dirs = std::env::split_paths(self.path).filter(|d| d.is_absolute());
        dirs.map(|dir| dir.join(program)).find(|p| p.is_file())
    }
}

/// Finds out what `argv` runs.
pub(super) fn recognise(argv: &[String], place: Place<'_>) -> Result<Program, Unknown> {
    let Some((first, rest)) = argv.split_first() else {
        return Err(Unknown("there is no command".to_owned()));
    };
    let base = first.rsplit('/').next().unwrap_or(first);
    match base {
        "sh" | "bash" | "dash" => return shell(rest, place),
        "exec" => return recognise(rest, place),
        // The environment that these would enter is active in the pod.
        "uv" | "poetry" | "pipenv" | "pdm"
            if rest.first().is_some_and(|w| w == "run")
                && rest.get(1).is_some_and(|w| !w.starts_with('-')) =>
        {
            return recognise(&rest[1..], place);
        }
        "npm" | "npx" | "pnpm" | "yarn" | "bun" | "bunx" => {
            return Err(Unknown(format!(
                "`{base}` starts the program, and would itself be what is debugged"
            )));
        }
        "node" | "nodejs" => {
            return Ok(Program::Node {
                node: first.clone(),
                rest: rest.to_vec(),
            });
        }
        _ if is_python(base) => return python(first, rest),
        _ => {}
    }
    let Some(file) = place.find(first) else {
        return Err(Unknown(format!("there is no program `{first}` to look at")));
    };
    let head = head(&file);
    if head.starts_with(b"\x7fELF") {
        return Ok(Program::Native { file });
    }
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.lines();
    let shebang = lines.next().unwrap_or_default();
    // Where the interpreter's path is long, or has spaces, the second line starts it.
    let second = lines.next().filter(|l| l.contains("exec'"));
    if !shebang.starts_with("#!") {
        return Err(Unknown(format!(
            "`{first}` is neither a machine program nor a script"
        )));
    }
    let script = file.display().to_string();
    let words: Vec<String> = std::iter::once(script)
        .chain(rest.iter().cloned())
        .collect();
    if shebang.contains("python") || second.is_some_and(|l| l.contains("python")) {
        let beside = file.with_file_name("python");
        let interpreter = if beside.exists() {
            beside.display().to_string()
        } else {
            "python3".to_owned()
        };
        return python(&interpreter, &words);
    }
    if shebang.contains("node") {
        return Ok(Program::Node {
            node: "node".to_owned(),
            rest: words,
        });
    }
    Err(Unknown(format!(
        "`{first}` is a script of `{}`",
        shebang.trim_start_matches("#!").trim()
    )))
}

fn is_python(base: &str) -> bool {
    let version = base
        .strip_prefix("python")
        .or_else(|| base.strip_prefix("pypy"));
    version.is_some_and(|v| v.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// `-c LINE`, where the line is no more than a command.
fn shell(rest: &[String], place: Place<'_>) -> Result<Program, Unknown> {
    let unclear = || Unknown("a shell starts it, in a way that can't be looked through".to_owned());
    let [option, line] = rest else {
        return Err(unclear());
    };
    let is_special = |c: char| "|&;<>()$`\\\"'*?[]{}#~=%\n!".contains(c);
    if option != "-c" || line.contains(is_special) {
        return Err(unclear());
    }
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    recognise(&words, place)
}

/// Takes Python's own options from the program: what follows `-m`, `-c` or a file's name
/// is the program's.
fn python(interpreter: &str, rest: &[String]) -> Result<Program, Unknown> {
    let mut own = vec![interpreter.to_owned()];
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let mut target: Vec<String> = Vec::new();
        if word == "--check-hash-based-pycs" {
            own.push(word.clone());
            own.extend(words.next().cloned());
            continue;
        } else if word.starts_with("--") {
            own.push(word.clone());
            continue;
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
            // Letters may be joined, the last with its argument: `-um app`, `-Xdev`.
            match letters.find(['m', 'c', 'W', 'X']) {
                None => {
                    own.push(word.clone());
                    continue;
                }
                Some(at) if letters[at..].starts_with(['W', 'X']) => {
                    own.push(word.clone());
                    if at + 1 == letters.len() {
                        own.extend(words.next().cloned());
                    }
                    continue;
                }
                Some(at) => {
                    if at > 0 {
                        own.push(format!("-{}", &letters[..at]));
                    }
                    target.push(format!("-{}", &letters[at..=at]));
                    if at + 1 < letters.len() {
                        target.push(letters[at + 1..].to_owned());
                    }
                }
            }
        } else if word == "-" {
            break;
        } else {
            target.push(word.clone());
        }
        target.extend(words.cloned());
        return Ok(Program::Python {
            interpreter: own,
            target,
        });
    }
    Err(Unknown("Python is given no program".to_owned()))
}

fn head(file: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(open) = fs::File::open(file) {
        // What can't be read is not known.
        let _ = open.take(1024).read_to_end(&mut head);
    }
    head
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rstest::rstest;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn shown(found: Result<Program, Unknown>) -> String {
        match found {
            Ok(Program::Python {
                interpreter,
                target,
            }) => format!("{} | {}", interpreter.join(" "), target.join(" ")),
            Ok(Program::Node { node, rest }) => format!("{node} || {}", rest.join(" ")),
            Ok(Program::Native { file }) => format!("native {}", file.display()),
            Err(Unknown(why)) => format!("unknown: {why}"),
        }
    }

    #[rstest]
    #[case("python main.py", "python | main.py")]
    #[case("python3.12 -u -m app --port 1", "python3.12 -u | -m app --port 1")]
    #[case("/v/bin/python3 -um app", "/v/bin/python3 -u | -m app")]
    #[case("python -X dev -Wd x.py -m no", "python -X dev -Wd | x.py -m no")]
    #[case("python -mapp", "python | -m app")]
    #[case(
        "python --check-hash-based-pycs never -c 1",
        "python --check-hash-based-pycs never | -c 1"
    )]
    #[case("python -i", "unknown: Python is given no program")]
    #[case("python -", "unknown: Python is given no program")]
    #[case(
        "node --enable-source-maps a.js x",
        "node || --enable-source-maps a.js x"
    )]
    #[case("uv run python -m app", "python | -m app")]
    #[case(
        "npm start",
        "unknown: `npm` starts the program, and would itself be what is debugged"
    )]
    #[case(
        "no-such-program x",
        "unknown: there is no program `no-such-program` to look at"
    )]
    #[case("", "unknown: there is no command")]
    fn commands(#[case] line: &str, #[case] expected: &str) {
        let place = Place {
            cwd: Path::new("/"),
            path: "/nowhere",
        };
        assert_eq!(shown(recognise(&words(line), place)), expected);
    }

    #[rstest]
    #[case("exec python -m app", "python | -m app")]
    #[case(
        "node a.js && true",
        "unknown: a shell starts it, in a way that can't be looked through"
    )]
    #[case(
        "A=1 node a.js",
        "unknown: a shell starts it, in a way that can't be looked through"
    )]
    fn shells(#[case] line: &str, #[case] expected: &str) {
        let place = Place {
            cwd: Path::new("/"),
            path: "/nowhere",
        };
        let argv = ["sh", "-c", line].map(str::to_owned);
        assert_eq!(shown(recognise(&argv, place)), expected);
    }

    #[rstest]
    #[case("#!/v/bin/python\nimport sys\n", "python3 | DIR/prog a")]
    #[case(
        "#!/bin/sh\n'''exec' \"/a b/python\" \"$0\" \"$@\"\n' '''\n",
        "python3 | DIR/prog a"
    )]
    #[case("#!/usr/bin/env node\n", "node || DIR/prog a")]
    #[case("#!/bin/sh\necho\n", "unknown: `prog` is a script of `/bin/sh`")]
    #[case("\u{7f}ELF", "native DIR/prog")]
    #[case("hello", "unknown: `prog` is neither a machine program nor a script")]
    fn files(#[case] text: &str, #[case] expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prog");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().display().to_string();
        let place = Place {
            cwd: Path::new("/"),
            path: &path,
        };
        let found = shown(recognise(&words("prog a"), place));
        assert_eq!(found.replace(&path, "DIR"), expected);
    }

    #[test]
    fn a_script_of_an_environment_runs_with_its_python() {
        let dir = tempfile::tempdir().unwrap();
        let (file, python) = (dir.path().join("serve"), dir.path().join("python"));
        fs::write(&file, "#!/somewhere/python\n").unwrap();
        fs::write(&python, "").unwrap();
        let place = Place {
            cwd: dir.path(),
            path: "",
        };
        let found = shown(recognise(&words("./serve -x"), place));
        let dir = dir.path().display();
        assert_eq!(found, format!("{dir}/python | {dir}/./serve -x"));
    }
}
