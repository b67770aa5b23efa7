//! `ENTRYPOINT` and `CMD` of an image as a command of this machine.

use std::path::Path;

use super::context::Place;
use super::{Docker, Language, Look};
use crate::config::Command;
use crate::dockerfile;
use crate::source::Span;

/// What the Dockerfile says is run.
#[derive(Debug)]
pub(super) enum Program {
    /// It says nothing.
    None,
    /// This works here.
    Run(Run),
    /// A program that exists only once the source has been built.
    Made(Made),
    /// It can't work here; the reason is a sentence without a full stop.
    No(String),
}

#[derive(Debug)]
pub(super) struct Run {
    pub command: Command,
    /// How many words of it are the ENTRYPOINT.
    pub entrypoint: usize,
    pub why: String,
}

/// A command in which one word stands for what the build makes.
#[derive(Debug)]
pub(super) struct Made {
    /// Path or name in the image.
    pub program: String,
    before: Vec<String>,
    after: After,
    entrypoint: usize,
    pub why: String,
    /// The instruction that puts it into the image, if one copies it.
    copied: Option<String>,
}

#[derive(Debug)]
enum After {
    Words(Vec<String>),
    /// In a line for this shell, with what stands before and after it.
    Line {
        shell: Vec<String>,
        before: String,
        after: String,
    },
}

impl Made {
    /// The command with the words that run what was built in its place.
    pub(super) fn with(&self, made: &[&str]) -> Command {
        match &self.after {
            After::Words(after) => {
                let made = made.iter().map(|w| (*w).to_owned());
                let words = self.before.iter().cloned().chain(made);
                Command::Argv(words.chain(after.iter().cloned()).collect())
            }
            After::Line {
                shell,
                before,
                after,
            } => {
                let made = Command::Argv(made.iter().map(|w| (*w).to_owned()).collect());
                in_shell(shell, &format!("{before}{made}{after}"))
            }
        }
    }

    /// How many of its words are the ENTRYPOINT when the program takes `words` of them.
    pub(super) fn entrypoint_with(&self, words: usize) -> Option<usize> {
        match self.after {
            After::Words(_) if self.entrypoint > self.before.len() => {
                Some(self.entrypoint - 1 + words)
            }
            After::Words(_) => Some(self.entrypoint),
            After::Line { .. } => None,
        }
    }

    /// What starts it, such as a virtual machine with its options.
    pub(super) fn starter(&self) -> Option<String> {
        match &self.after {
            After::Words(_) if self.before.is_empty() => None,
            After::Words(_) => Some(Command::Argv(self.before.clone()).to_string()),
            After::Line { before, .. } => {
                let before = before.strip_prefix("exec ").unwrap_or(before).trim();
                (!before.is_empty()).then(|| before.to_owned())
            }
        }
    }

    pub(super) fn reason(&self) -> String {
        match &self.copied {
            Some(copy) => format!("{} runs {}, which {copy} makes", self.why, self.program),
            None => format!(
                "{} runs {}, which is not in the source",
                self.why, self.program
            ),
        }
    }
}

/// What the image runs, in terms of this machine.
pub(super) fn read(look: &mut Look<'_>, docker: &Docker, language: Option<Language>) -> Program {
    use dockerfile::Program::{Exec, Shell};
    let image = &docker.image;
    let (said, instruction) = match (&image.entrypoint, &image.cmd) {
        (Some(entrypoint), _) => (entrypoint, Instruction::Entrypoint),
        (None, Some(cmd)) => (cmd, Instruction::Cmd),
        (None, None) => return Program::None,
    };
    let mut words = Words {
        look,
        docker,
        language,
        why: docker.why(said.span, instruction.word()),
    };
    let argv = match &said.value {
        // The shell form of ENTRYPOINT takes no arguments.
        Shell { shell, line } => return line_of(&mut words, shell, line, instruction),
        Exec(argv) => argv.clone(),
    };
    if instruction == Instruction::Cmd {
        return words.exec(argv, 0);
    }
    let entrypoint = argv.len();
    let more = match image.cmd.as_ref().map(|c| &c.value) {
        Some(Exec(more)) => more.clone(),
        Some(Shell { shell, line }) => [shell.as_slice(), std::slice::from_ref(line)].concat(),
        None => Vec::new(),
    };
    words.exec([argv, more].concat(), entrypoint)
}

/// A line for a shell. Its first word is what can be looked at; the rest is the shell's.
fn line_of(
    words: &mut Words<'_, '_>,
    shell: &[String],
    line: &str,
    instruction: Instruction,
) -> Program {
    let (exec, rest) = match line.strip_prefix("exec ") {
        Some(rest) => ("exec ", rest.trim_start()),
        None => ("", line),
    };
    let argv: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let assigns = argv.first().is_some_and(|word| word.contains('='));
    // A plain list of words needs no shell, and is ended by signals without one.
    if !line.contains(SPECIAL) && !assigns && is_usual(shell) {
        let entrypoint = if instruction == Instruction::Entrypoint {
            argv.len()
        } else {
            0
        };
        return words.exec(argv, entrypoint);
    }
    let rest = after_words(rest, unwrapped(&argv));
    if let Some(made) = words.java_line(shell, exec, rest) {
        return Program::Made(made);
    }
    let first = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
    let after = &rest[first.len()..];
    let found = if first.contains(SPECIAL) || first.contains('=') {
        Found::Word(vec![first.to_owned()])
    } else {
        words.program(first)
    };
    match found {
        Found::Word(program) => {
            let program = match program.as_slice() {
                [same] if same == first => first.to_owned(),
                _ => Command::Argv(program).to_string(),
            };
            let command = in_shell(shell, &format!("{exec}{program}{after}"));
            let entrypoint = match instruction {
                Instruction::Entrypoint => command.argv().len(),
                Instruction::Cmd => 0,
            };
            Program::Run(Run {
                command,
                entrypoint,
                why: words.why.clone(),
            })
        }
        Found::Made(copied) => Program::Made(Made {
            program: first.to_owned(),
            before: Vec::new(),
            after: After::Line {
                shell: shell.to_vec(),
                before: exec.to_owned(),
                after: after.to_owned(),
            },
            entrypoint: 0,
            why: words.why.clone(),
            copied,
        }),
        Found::No(reason) => Program::No(reason),
    }
}

/// What follows the first `count` words.
fn after_words(line: &str, count: usize) -> &str {
    (0..count).fold(line, |rest, _| {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest[end..].trim_start()
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Instruction {
    Entrypoint,
    Cmd,
}

impl Instruction {
    fn word(self) -> &'static str {
        match self {
            Instruction::Entrypoint => "ENTRYPOINT",
            Instruction::Cmd => "CMD",
        }
    }
}

/// Characters that mean something to a shell.
const SPECIAL: &[char] = &[
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '"', '\'', '*', '?', '[', ']', '#', '~',
    '{', '}', '\n',
];

fn is_usual(shell: &[String]) -> bool {
    *shell == ["/bin/sh", "-c"]
}

fn in_shell(shell: &[String], line: &str) -> Command {
    if is_usual(shell) {
        return Command::Shell(line.to_owned());
    }
    let mut argv = shell.to_vec();
    argv.push(line.to_owned());
    Command::Argv(argv)
}

/// How many words at the beginning only start others: init programs of containers,
/// changes of the user, runners of package managers.
fn unwrapped(argv: &[String]) -> usize {
    let mut at = 0;
    while let Some(word) = argv.get(at) {
        let options = |from: usize, with_value: &[&str]| {
            let mut at = from;
            while let Some(word) = argv.get(at) {
                match word.as_str() {
                    "--" => return at + 1,
                    w if with_value.contains(&w) => at += 2,
                    w if w.starts_with('-') => at += 1,
                    _ => break,
                }
            }
            at
        };
        let next = argv.get(at + 1).map(String::as_str);
        at = match (base(word), next) {
            ("tini" | "tini-static" | "docker-init", _) => options(at + 1, &["-p", "-e"]),
            ("dumb-init", _) => options(at + 1, &["-r", "--rewrite"]),
            ("gosu" | "su-exec", _) => at + 2,
            // With `-m` the word after it is no program.
            ("uv", Some("run")) if !argv.iter().any(|w| w == "-m" || w == "--module") => {
                options(at + 2, OF_UV)
            }
            ("poetry" | "pipenv" | "rye" | "pdm", Some("run")) => at + 2,
            _ => return at,
        };
    }
    at
}

/// Options of `uv run` that take a value.
const OF_UV: &[&str] = &[
    "--python",
    "-p",
    "--project",
    "--directory",
    "--extra",
    "--group",
    "--env-file",
    "--package",
    "--with",
    "--with-requirements",
];

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Where the image's own system has its programs.
const SYSTEM: [&str; 6] = [
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
];

/// What a program of the image is here.
enum Found {
    /// These words run it.
    Word(Vec<String>),
    /// The build makes it; the instruction that copies it into the image.
    Made(Option<String>),
    No(String),
}

struct Words<'w, 'l> {
    look: &'w mut Look<'l>,
    docker: &'w Docker,
    language: Option<Language>,
    why: String,
}

impl Words<'_, '_> {
    fn exec(&mut self, argv: Vec<String>, entrypoint: usize) -> Program {
        let mut skip = unwrapped(&argv);
        // The base images of Node and Python begin with a script that runs its arguments.
        let is_bases = |word: &String| {
            base(word) == "docker-entrypoint.sh" && self.place(word) == Place::Unknown
        };
        if argv.get(skip).is_some_and(is_bases) {
            skip += 1;
        }
        let words = &argv[skip.min(argv.len())..];
        let entrypoint = entrypoint.saturating_sub(skip);
        let Some((first, rest)) = words.split_first() else {
            return Program::No(format!("{} names no program", self.why));
        };
        if first.is_empty() {
            return Program::No(format!("{} names no program", self.why));
        }
        if let [shell, flag, line] = words
            && let Some(shell) = shell_of(shell, flag)
        {
            let instruction = match entrypoint {
                0 => Instruction::Cmd,
                _ => Instruction::Entrypoint,
            };
            return line_of(self, &shell, line, instruction);
        }
        if base(first) == "java" {
            return self.java(first, rest, entrypoint);
        }
        match self.program(first) {
            Found::Word(mut program) => {
                // An interpreter before a script is one more word of it.
                let more = program.len() - 1;
                program.extend(rest.iter().map(|word| self.argument(word)));
                let (program, why) = self.without_reloader(program);
                Program::Run(Run {
                    command: Command::Argv(program),
                    entrypoint: if entrypoint > 0 { entrypoint + more } else { 0 },
                    why,
                })
            }
            Found::Made(copied) => Program::Made(Made {
                program: first.clone(),
                before: Vec::new(),
                after: After::Words(rest.to_vec()),
                entrypoint,
                why: self.why.clone(),
                copied,
            }),
            Found::No(reason) => Program::No(reason),
        }
    }

    /// The archive that Java runs is what the build makes.
    fn java(&mut self, first: &str, rest: &[String], entrypoint: usize) -> Program {
        let jar = rest.iter().position(|w| w == "-jar").map(|i| i + 1);
        let Some((i, jar)) = jar.and_then(|i| Some((i, rest.get(i)?))) else {
            let mut argv = vec![base(first).to_owned()];
            argv.extend(rest.iter().map(|word| self.argument(word)));
            return Program::Run(Run {
                command: Command::Argv(argv),
                entrypoint,
                why: self.why.clone(),
            });
        };
        let copied = match self.place(jar) {
            Place::Made { from, span } => Some(self.copy(span, &from)),
            _ => None,
        };
        let mut before = vec![base(first).to_owned()];
        before.extend(rest[..i].iter().cloned());
        Program::Made(Made {
            program: jar.clone(),
            before,
            after: After::Words(rest[i + 1..].to_vec()),
            entrypoint,
            why: self.why.clone(),
            copied,
        })
    }

    /// `java $OPTIONS -jar app.jar` for a shell.
    fn java_line(&self, shell: &[String], exec: &str, line: &str) -> Option<Made> {
        const JAR: &str = " -jar ";
        let options = line.strip_prefix("java ").map(|_| line.find(JAR))??;
        let (before, rest) = line.split_at(options + JAR.len());
        let rest = rest.trim_start();
        let (jar, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let copied = match self.place(jar) {
            Place::Made { from, span } => Some(self.copy(span, &from)),
            _ => None,
        };
        Some(Made {
            program: jar.to_owned(),
            before: Vec::new(),
            after: After::Line {
                shell: shell.to_vec(),
                before: format!("{exec}{before}"),
                after: after.to_owned(),
            },
            entrypoint: 0,
            why: self.why.clone(),
            copied,
        })
    }

    fn copy(&self, span: Span, from: &str) -> String {
        self.docker.why(span, &format!("COPY --from={from}"))
    }

    /// The path in the image that a word names: relative ones are below WORKDIR.
    fn absolute(&self, word: &str) -> String {
        if word.starts_with('/') {
            return word.to_owned();
        }
        let workdir = self.docker.image.workdir.as_ref();
        let workdir = workdir.map_or("", |w| w.value.trim_end_matches('/'));
        format!("{workdir}/{}", word.trim_start_matches("./"))
    }

    fn place(&self, word: &str) -> Place {
        self.docker.context.find(&self.absolute(word))
    }

    fn program(&mut self, word: &str) -> Found {
        if !word.contains('/') {
            return self.named(word);
        }
        match self.place(word) {
            Place::Here(path) if path.is_file() => Found::Word(self.script(&path)),
            Place::Made { from, span } if self.is_compiled() || self.language.is_none() => {
                Found::Made(Some(self.copy(span, &from)))
            }
            _ => self.unknown(word),
        }
    }

    fn is_compiled(&self) -> bool {
        self.language.is_some_and(Language::compiled)
    }

    /// A program that is looked up in PATH.
    fn named(&mut self, word: &str) -> Found {
        for dir in SYSTEM {
            match self.docker.context.find(&format!("{dir}/{word}")) {
                Place::Made { from, span } if self.is_compiled() => {
                    return Found::Made(Some(self.copy(span, &from)));
                }
                Place::Here(path) => return Found::Word(self.script(&path)),
                _ => {}
            }
        }
        // Runners such as `uv run` take scripts as they are.
        let path = self.look.path(word);
        if starter_of(&path).is_some() && path.is_file() {
            return Found::Word(self.script(&path));
        }
        // `npm install` puts the programs of packages here, and PATH doesn't name it.
        if self.language == Some(Language::Node) && !is_of_node(word) {
            let local = format!("node_modules/.bin/{word}");
            if super::node::depends_on(self.look, word) {
                let path = self.look.path(&local);
                return Found::Word(vec![self.look.as_program(&path)]);
            }
        }
        Found::Word(vec![word.to_owned()])
    }

    /// A path of the image that no file of the source was copied to.
    fn unknown(&mut self, word: &str) -> Found {
        let path = self.absolute(word);
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if dir.ends_with("/node_modules/.bin") {
            let path = self.look.path(&format!("node_modules/.bin/{name}"));
            return Found::Word(vec![self.look.as_program(&path)]);
        }
        if let Some(below) = self.below_workdir(&path) {
            // Another stage has passed the source on.
            let path = self.look.path(below);
            if path.is_file() {
                return Found::Word(self.script(&path));
            }
        }
        // `go install` and `cargo install` leave programs where the system has its own.
        let installed =
            dir == "/usr/local/bin" || dir.ends_with("/go/bin") || dir.ends_with("/cargo/bin");
        if self.is_compiled() && (installed || !SYSTEM.contains(&dir)) {
            return Found::Made(None);
        }
        // A virtual environment of the image; ours is in PATH.
        let virtual_env = self.language == Some(Language::Python) && dir.ends_with("/bin");
        if SYSTEM.contains(&dir) || virtual_env {
            return Found::Word(vec![name.to_owned()]);
        }
        Found::No(format!(
            "{} runs {word}, which is not in the source",
            self.why
        ))
    }

    /// What remains of a path of the image below its WORKDIR.
    fn below_workdir<'p>(&self, path: &'p str) -> Option<&'p str> {
        let workdir = &self.docker.image.workdir.as_ref()?.value;
        path.strip_prefix(workdir.as_str())?.strip_prefix('/')
    }

    /// A file of the source that is run. Images often make it executable themselves, so
    /// here its first line may have to say what runs it.
    fn script(&self, path: &Path) -> Vec<String> {
        let program = self.look.as_program(path);
        let mut words = interpreter(path).unwrap_or_default();
        words.push(program);
        words
    }

    /// An absolute path of the image in an argument, as it is called here.
    fn argument(&self, word: &str) -> String {
        if !word.starts_with('/') {
            return word.to_owned();
        }
        match (self.place(word), self.below_workdir(word)) {
            (Place::Here(path), _) => self.look.in_workdir(&path),
            // Made by the build, at the same place.
            (_, Some(below)) if !below.is_empty() => below.to_owned(),
            _ => word.to_owned(),
        }
    }

    /// Without programs and options that restart the program when a file changes: two
    /// that do it get into each other's way.
    fn without_reloader(&self, mut argv: Vec<String>) -> (Vec<String>, String) {
        let mut why = self.why.clone();
        let program = base(&argv[0]).to_owned();
        let server = [
            "uvicorn",
            "gunicorn",
            "hypercorn",
            "fastapi",
            "flask",
            "python",
            "python3",
        ];
        let django = argv.iter().any(|word| word == "runserver");
        if django && !argv.iter().any(|word| word == "--noreload") {
            argv.push("--noreload".into());
            why.push_str(" with --noreload, as devenv reloads it");
        } else if server.contains(&program.as_str()) {
            let before = argv.len();
            argv.retain(|word| word != "--reload");
            if argv.len() < before {
                why.push_str(" without --reload, as devenv reloads it");
            }
        } else if program == "nodemon"
            && argv.len() == 2
            && !argv[1].starts_with('-')
            && argv[1].ends_with("js")
        {
            argv[0] = "node".into();
            why.push_str(" without nodemon, as devenv reloads it");
        }
        (argv, why)
    }
}

fn is_of_node(word: &str) -> bool {
    [
        "node", "npm", "npx", "yarn", "pnpm", "bun", "bunx", "deno", "corepack", "sh", "bash",
    ]
    .contains(&word)
}

/// The shell that `sh -c` and the like name, and its option.
fn shell_of(program: &str, flag: &str) -> Option<Vec<String>> {
    if !["-c", "-ec", "-lc"].contains(&flag) {
        return None;
    }
    match base(program) {
        "sh" if flag == "-c" => Some(vec!["/bin/sh".into(), "-c".into()]),
        shell @ ("sh" | "bash" | "ash" | "dash") => Some(vec![shell.into(), flag.into()]),
        _ => None,
    }
}

/// What runs a script of this name.
fn starter_of(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "py" => Some("python"),
        "js" | "mjs" | "cjs" => Some("node"),
        "rb" => Some("ruby"),
        "sh" => Some("sh"),
        _ => None,
    }
}

/// What runs a script that isn't executable: the words of its first line, or what its
/// name tells.
fn interpreter(path: &Path) -> Option<Vec<String>> {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 != 0 {
        return None;
    }
    let mut start = [0; 256];
    let mut file = std::fs::File::open(path).ok()?;
    let len = file.read(&mut start).ok()?;
    let text = String::from_utf8_lossy(&start[..len]).into_owned();
    let line = text.strip_prefix("#!").and_then(|rest| rest.lines().next());
    let words = line.unwrap_or("").split_whitespace();
    let words: Vec<String> = words.map(str::to_owned).collect();
    if words.is_empty() {
        return Some(vec![starter_of(path)?.to_owned()]);
    }
    Some(words)
}
