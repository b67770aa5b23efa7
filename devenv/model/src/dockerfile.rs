//! What a Dockerfile says about the image that it makes: its last stage, with what that
//! one takes over from the stages that it is built on.

mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parse_dockerfile::{Command, Flag, Instruction, RunInstruction, Source};

use crate::source::Span;

/// A value, and the instruction that said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said<T> {
    pub value: T,
    pub span: Span,
}

/// `CMD` or `ENTRYPOINT`, in either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `["program", "argument"]`.
    Exec(Vec<String>),
    /// `program argument`, for a shell; `/bin/sh -c` unless `SHELL` named another.
    Shell { shell: Vec<String>, line: String },
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The stage or image that it copies from, instead of the build's context.
    pub from: Option<String>,
    pub sources: Vec<String>,
    /// Absolute.
    pub dest: String,
    /// Whether `dest` is written as a folder: with a slash at its end.
    pub into: bool,
}

/// The image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// The image that the last stage is built on in the end.
    pub base: String,
    /// What the stages are built on that the last one is not built on.
    pub other_bases: Vec<String>,
    /// Absolute.
    pub workdir: Option<Said<String>>,
    pub env: BTreeMap<String, Said<String>>,
    pub entrypoint: Option<Said<Program>>,
    pub cmd: Option<Said<Program>>,
    /// TCP ports.
    pub exposed: Vec<Said<u16>>,
    /// What is copied into the image.
    pub copies: Vec<Said<Copy>>,
    /// The commands that build it, of all stages in the order of the file.
    pub runs: Vec<Said<String>>,
    /// What other stages copy from the build's context, with variables as written.
    pub other_sources: Vec<String>,
}

/// The file can't be read as a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// From 1.
    pub line: usize,
    pub message: String,
}

/// Reads the text of the file with the number `file`.
pub(crate) fn read(file: u32, text: &str) -> Result<Image, Malformed> {
    let dockerfile = parse_dockerfile::parse(text).map_err(|e| Malformed {
        line: e.line().max(1),
        message: cut(&format!("{e:#}")),
    })?;
    let escape = dockerfile.parser_directives.escape.as_ref();
    let mut reader = Reader {
        file,
        escape: escape.map_or('\\', |e| e.value.value),
        global: HashMap::new(),
        args: HashMap::new(),
        shell: None,
        cmd_is_own: false,
        image: Image::default(),
    };
    for arg in dockerfile.global_args() {
        reader.global_arg(&arg.arguments.value);
    }
    let stages: Vec<parse_dockerfile::Stage<'_, '_>> = dockerfile.stages().collect();
    let (chain, bases) = reader.chain(&stages);
    for (i, stage) in stages.iter().enumerate() {
        if chain.contains(&i) {
            reader.stage(stage);
        } else {
            reader.other_stage(stage);
        }
    }
    let first = chain.first().map(|i| bases[*i].clone());
    reader.image.base = first.unwrap_or_default();
    let other = bases.iter().enumerate().filter(|(i, _)| !chain.contains(i));
    reader.image.other_bases = other.map(|(_, base)| base.clone()).collect();
    Ok(reader.image)
}

/// The parser's message may quote a word, and that can be the whole file.
fn cut(message: &str) -> String {
    const SHOWN: usize = 100;
    match message.char_indices().nth(SHOWN) {
        Some((i, _)) => format!("{}…", &message[..i]),
        None => message.to_owned(),
    }
}

/// Reads instructions; what they say gathers in `image`.
struct Reader {
    file: u32,
    escape: char,
    /// `ARG` before the first `FROM`.
    global: HashMap<String, Option<String>>,
    /// Those of the stage that is being read.
    args: HashMap<String, Option<String>>,
    shell: Option<Vec<String>>,
    /// Whether `CMD` was said in the stage that is being read.
    cmd_is_own: bool,
    image: Image,
}

impl Reader {
    fn global_arg(&mut self, text: &str) {
        for (name, value) in words::pairs_of_arg(text, self.escape) {
            let get = |name: &str| self.global.get(name).cloned().flatten();
            let value = value.map(|v| words::expand(&v, self.escape, &get));
            self.global.insert(name, value);
        }
    }

    /// The indices of the stages that the last one is built on, itself included, and of
    /// every stage what it is built on, or the same as written if that is a stage.
    fn chain(&self, stages: &[parse_dockerfile::Stage<'_, '_>]) -> (BTreeSet<usize>, Vec<String>) {
        let mut named: HashMap<String, usize> = HashMap::new();
        let mut earlier: Vec<Option<usize>> = Vec::new();
        let mut bases: Vec<String> = Vec::new();
        for (i, stage) in stages.iter().enumerate() {
            let get = |name: &str| self.global.get(name).cloned().flatten();
            let base = words::expand(&stage.from.image.value, self.escape, &get);
            earlier.push(named.get(&base.to_lowercase()).copied());
            bases.push(base);
            if let Some((_, name)) = &stage.from.as_ {
                named.insert(name.value.to_lowercase(), i);
            }
        }
        let mut chain = BTreeSet::new();
        let mut next = stages.len().checked_sub(1);
        while let Some(i) = next {
            chain.insert(i);
            next = earlier[i];
        }
        (chain, bases)
    }

    fn stage(&mut self, stage: &parse_dockerfile::Stage<'_, '_>) {
        // Arguments end with their stage.
        self.args.clear();
        self.cmd_is_own = false;
        for instruction in stage.instructions {
            self.instruction(instruction);
        }
    }

    /// A stage that the image is not built on: it only shows how the source is built.
    fn other_stage(&mut self, stage: &parse_dockerfile::Stage<'_, '_>) {
        for instruction in stage.instructions {
            match instruction {
                Instruction::Run(run) => self.run(run),
                Instruction::Copy(copy) if from(&copy.options).is_none() => {
                    let sources = copy.src.iter().filter_map(|source| match source {
                        Source::Path(path) => Some(path.value.clone().into_owned()),
                        _ => None,
                    });
                    self.image.other_sources.extend(sources);
                }
                _ => {}
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction<'_>) {
        match instruction {
            Instruction::Arg(arg) => {
                for (name, value) in words::pairs_of_arg(&arg.arguments.value, self.escape) {
                    let value = match value {
                        Some(v) => Some(self.expand(&v)),
                        None => self.global.get(&name).cloned().flatten(),
                    };
                    self.args.insert(name, value);
                }
            }
            Instruction::Env(env) => {
                let span = self.span(env.env.span.start, env.arguments.span.end);
                // All of one line see the values from before it.
                let pairs: Vec<(String, String)> = words::pairs(&env.arguments.value, self.escape)
                    .into_iter()
                    .map(|(name, value)| {
                        let value = value.map(|v| self.expand(&v));
                        (self.expand(&name), value.unwrap_or_default())
                    })
                    .collect();
                for (name, value) in pairs {
                    self.image.env.insert(name, Said { value, span });
                }
            }
            Instruction::Workdir(workdir) => {
                let path = self.expand(&workdir.arguments.value);
                let span = self.span(workdir.workdir.span.start, workdir.arguments.span.end);
                let value = self.absolute(&path);
                self.image.workdir = Some(Said { value, span });
            }
            Instruction::Cmd(cmd) => {
                self.cmd_is_own = true;
                self.image.cmd = self.program(cmd.cmd.span.start, &cmd.arguments);
            }
            Instruction::Entrypoint(entrypoint) => {
                let start = entrypoint.entrypoint.span.start;
                self.image.entrypoint = self.program(start, &entrypoint.arguments);
                // The base's arguments were for the base's program.
                if !self.cmd_is_own {
                    self.image.cmd = None;
                }
            }
            Instruction::Shell(shell) => {
                let words = shell.arguments.iter();
                self.shell = Some(words.map(|w| w.value.clone().into_owned()).collect());
            }
            Instruction::Expose(expose) => {
                for port in &expose.arguments {
                    let span = self.span(port.span.start, port.span.end);
                    let ports = tcp_ports(&self.expand(&port.value)).into_iter();
                    let said = ports.map(|value| Said { value, span });
                    self.image.exposed.extend(said);
                }
            }
            Instruction::Copy(copy) => {
                let span = self.span(copy.copy.span.start, copy.dest.span.end);
                self.copy(span, &copy.options, &copy.src, &copy.dest.value);
            }
            Instruction::Add(add) => {
                let span = self.span(add.add.span.start, add.dest.span.end);
                self.copy(span, &add.options, &add.src, &add.dest.value);
            }
            Instruction::Run(run) => self.run(run),
            _ => {}
        }
    }

    fn copy(&mut self, span: Span, options: &[Flag<'_>], sources: &[Source<'_>], dest: &str) {
        let sources = sources.iter().filter_map(|source| match source {
            Source::Path(path) => Some(self.expand(&path.value)),
            // A file that is written here has no source.
            _ => None,
        });
        let dest = self.expand(dest);
        let value = Copy {
            from: from(options).map(|f| self.expand(f)),
            sources: sources.collect(),
            into: dest.ends_with('/') || dest == "." || dest.ends_with("/."),
            dest: self.absolute(&dest),
        };
        self.image.copies.push(Said { value, span });
    }

    fn run(&mut self, run: &RunInstruction<'_>) {
        let (mut value, end) = match &run.arguments {
            Command::Exec(words) => {
                let text: Vec<&str> = words.value.iter().map(|w| &*w.value).collect();
                (text.join(" "), words.span.end)
            }
            Command::Shell(line) => (words::joined(line.value, self.escape), line.span.end),
            _ => return,
        };
        for document in &run.here_docs {
            value.push('\n');
            value.push_str(&document.value);
        }
        let span = self.span(run.run.span.start, end);
        self.image.runs.push(Said { value, span });
    }

    fn program(&self, start: usize, command: &Command<'_>) -> Option<Said<Program>> {
        let (value, end) = match command {
            Command::Exec(words) => {
                let argv = words.value.iter().map(|w| w.value.clone().into_owned());
                (Program::Exec(argv.collect()), words.span.end)
            }
            Command::Shell(line) => {
                let usual = || vec!["/bin/sh".into(), "-c".into()];
                let program = Program::Shell {
                    shell: self.shell.clone().unwrap_or_else(usual),
                    line: words::joined(line.value, self.escape),
                };
                (program, line.span.end)
            }
            _ => return None,
        };
        // `CMD []` takes back what the base says.
        let empty = match &value {
            Program::Exec(argv) => argv.is_empty(),
            Program::Shell { line, .. } => line.is_empty(),
        };
        let span = self.span(start, end);
        (!empty).then_some(Said { value, span })
    }

    fn absolute(&self, path: &str) -> String {
        let workdir = self.image.workdir.as_ref();
        absolute(workdir.map(|w| w.value.as_str()), path)
    }

    fn expand(&self, word: &str) -> String {
        words::expand(word, self.escape, &|name| {
            let env = self.image.env.get(name).map(|said| said.value.clone());
            env.or_else(|| self.args.get(name).cloned().flatten())
        })
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.file, start..end)
    }
}

/// The stage or image of `COPY --from=…`.
fn from<'f>(options: &'f [Flag<'_>]) -> Option<&'f str> {
    let from = options.iter().find(|o| o.name.value == "from")?;
    Some(&from.value.as_ref()?.value)
}

/// `path` as seen from `dir` (the root folder if there is none), without `.` and `..`.
fn absolute(dir: Option<&str>, path: &str) -> String {
    match dir {
        Some(dir) if !path.starts_with('/') => clean(&format!("{dir}/{path}")),
        _ => clean(path),
    }
}

/// A path from the root folder as an image's files have it: no `.`, no `..`, no double
/// slashes, as Go's `path.Clean` leaves it.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The ports of `8080`, `8080/tcp` or `8000-8002`; none for UDP and for what is no port.
fn tcp_ports(written: &str) -> Vec<u16> {
    /// Nobody lists more one by one in a manifest.
    const MAX_RANGE: usize = 64;
    let (range, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    if !protocol.eq_ignore_ascii_case("tcp") {
        return Vec::new();
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first > 0 => (first..=last).take(MAX_RANGE).collect(),
        _ => Vec::new(),
    }
}
