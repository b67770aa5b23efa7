//! What `devenv.toml` leaves out about an image, found out from its Dockerfile and from
//! the files beside its source. Nothing is run for that, and what is written always wins.

mod command;
mod context;
mod go;
mod java;
mod look;
mod node;
mod python;
mod ruby;
mod rust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Command, RawImage};
use crate::dockerfile::{self, Said};
use crate::problem::Draft;
use crate::reading::Reading;
use crate::source::{SourceFile, Span};
use crate::topology::{Inferred, PythonEnv};

use command::Program;
use context::Context;
use look::Look;

/// What is known of an image before anything is inferred.
#[derive(Clone, Copy)]
pub(crate) struct Known<'k> {
    pub name: &'k str,
    pub raw: &'k RawImage,
    /// Absolute.
    pub source: &'k Path,
    /// As `devenv.toml` says; absolute.
    pub workdir: Option<&'k Path>,
    pub dockerfile: Option<&'k Path>,
    /// The files of `python`; absolute.
    pub python: &'k [PathBuf],
    /// Where the source is named.
    pub span: Span,
    /// The port of its containers, if they have one only.
    pub port: Option<u16>,
}

/// What was found out. A value that is written in `devenv.toml` is not in here.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    pub install: Option<Command>,
    pub build: Option<Command>,
    pub run: Option<Command>,
    /// How many words of `run` are the ENTRYPOINT, if it is the Dockerfile's.
    pub entrypoint: Option<usize>,
    pub env: BTreeMap<String, String>,
    pub workdir: Option<PathBuf>,
    pub image_workdir: Option<PathBuf>,
    pub watch: Vec<PathBuf>,
    pub ignore: Vec<String>,
    pub python: Option<PythonEnv>,
    /// The Dockerfile, and the folder that it seems to copy from; absolute.
    pub dockerfile: Option<(PathBuf, PathBuf)>,
    pub inferred: Vec<Inferred>,
    pub exposed: Vec<Said<u16>>,
    /// Why there is no `run`.
    pub reasons: Vec<String>,
}

/// Infers what `known` leaves out.
pub(crate) fn infer(reading: &mut Reading, known: Known<'_>) -> Guess {
    let docker = Docker::read(reading, &known);
    let mut look = Look {
        workdir: known.source.to_owned(),
        reading,
        known,
        guess: Guess::default(),
    };
    look.guess.dockerfile = docker
        .as_ref()
        .map(|docker| (docker.path.clone(), docker.context.dir().to_owned()));
    look.workdirs(docker.as_ref());
    let language = look.language(docker.as_ref());
    look.environment(docker.as_ref(), language);
    let program = match &docker {
        Some(docker) => command::read(&mut look, docker, language),
        None => Program::None,
    };
    match language {
        Some(Language::Rust) => rust::infer(&mut look, docker.as_ref(), &program),
        Some(Language::Go) => go::infer(&mut look, docker.as_ref(), &program),
        Some(Language::Java) => java::infer(&mut look, &program),
        Some(Language::Python) => python::infer(&mut look, docker.as_ref(), &program),
        Some(Language::Ruby) => ruby::infer(&mut look, &program),
        Some(Language::Node) => node::infer(&mut look, docker.as_ref(), &program),
        None => look.run_as_said(&program),
    }
    if look.wants_run() && look.guess.run.is_none() {
        look.why_not(docker.as_ref(), &program, language);
    }
    look.guess
}

/// How a source is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    Go,
    Java,
    Python,
    Ruby,
    Node,
}

impl Language {
    /// The most telling first: a package.json is often there for tools alone.
    const ALL: [Language; 6] = [
        Language::Rust,
        Language::Go,
        Language::Java,
        Language::Python,
        Language::Ruby,
        Language::Node,
    ];

    /// The files that show it.
    fn markers(self) -> &'static [&'static str] {
        match self {
            Language::Rust => &["Cargo.toml"],
            Language::Go => &["go.mod"],
            Language::Java => &["pom.xml", "build.gradle", "build.gradle.kts"],
            Language::Python => python::MARKERS,
            Language::Ruby => &["Gemfile", "config.ru"],
            Language::Node => &["package.json"],
        }
    }

    /// Parts of the names of base images that have it.
    fn images(self) -> &'static [&'static str] {
        match self {
            Language::Rust => &["rust", "cargo-chef"],
            Language::Go => &["golang"],
            Language::Java => &[
                "openjdk", "temurin", "corretto", "maven", "gradle", "jdk", "jre", "java", "zulu",
            ],
            Language::Python => &["python", "uvicorn", "uv"],
            Language::Ruby => &["ruby", "rails"],
            Language::Node => &["node", "bun"],
        }
    }

    /// Whether what is run is made by the build.
    fn compiled(self) -> bool {
        matches!(self, Language::Rust | Language::Go | Language::Java)
    }
}

/// A Dockerfile that could be read.
struct Docker {
    /// Absolute.
    path: PathBuf,
    /// Path shown in messages.
    name: String,
    text: Arc<SourceFile>,
    image: dockerfile::Image,
    context: Context,
}

impl Docker {
    fn read(reading: &mut Reading, known: &Known<'_>) -> Option<Docker> {
        let span = known.span;
        let (id, path) = match known.dockerfile {
            Some(path) => (reading.file(path, span)?, path.to_owned()),
            None => ["Dockerfile", "Containerfile"].iter().find_map(|name| {
                let path = known.source.join(name);
                Some((reading.optional(&path, span)?, path))
            })?,
        };
        let text = reading.sources.file(id).clone();
        match dockerfile::read(id, text.text()) {
            Ok(image) => Some(Docker {
                path,
                name: text.name().to_owned(),
                context: Context::of(&reading.root, known.source, &image),
                text,
                image,
            }),
            Err(e) => {
                let start = text.line_start(e.line - 1).unwrap_or(0);
                reading.problems.push(
                    Draft::warning(
                        "dockerfile::malformed",
                        Span::new(id, start..start),
                        format!("this is no Dockerfile: {}", e.message),
                    )
                    .help("nothing is inferred from it"),
                );
                None
            }
        }
    }

    /// `services/api/Dockerfile:12 CMD`.
    fn why(&self, span: Span, instruction: &str) -> String {
        let (line, _) = self.text.line_column(span.start as usize);
        format!("{}:{line} {instruction}", self.name)
    }
}

impl Look<'_> {
    /// Where commands run, and where that appears in the pod.
    fn workdirs(&mut self, docker: Option<&Docker>) {
        let said = docker.and_then(|d| Some((d, d.image.workdir.as_ref()?)));
        let mapped = said.and_then(|(d, w)| d.context.folder_at(&w.value));
        if let Some(given) = self.known.workdir {
            self.workdir = given.to_owned();
        } else if let (Some((docker, said)), Some(mapped)) = (said, &mapped)
            && *mapped != self.known.source
        {
            self.workdir.clone_from(mapped);
            let why = docker.why(said.span, "WORKDIR holds what is copied from there");
            self.note("workdir", self.shown(mapped), why);
            self.guess.workdir = Some(mapped.clone());
        }
        let Some((docker, said)) = said.filter(|_| self.known.raw.image_workdir.is_none()) else {
            return;
        };
        let same = mapped.as_deref().unwrap_or(self.known.source) == self.workdir;
        let path = PathBuf::from(&said.value);
        if same && may_appear(&path, &self.reading.root) && path != self.workdir {
            self.note(
                "image_workdir",
                said.value.clone(),
                docker.why(said.span, "WORKDIR"),
            );
            self.guess.image_workdir = Some(path);
        }
    }

    /// The image's own variables, without those about places in the image.
    fn environment(&mut self, docker: Option<&Docker>, language: Option<Language>) {
        let Some(docker) = docker else { return };
        self.guess.exposed.clone_from(&docker.image.exposed);
        for (name, said) in &docker.image.env {
            let legal =
                !name.is_empty() && !name.contains(['=', '\0']) && !said.value.contains('\0');
            if !legal || is_about_the_image(name, language) || self.known.raw.env.contains_key(name)
            {
                continue;
            }
            self.note(
                format!("env.{name}"),
                said.value.clone(),
                docker.why(said.span, "ENV"),
            );
            self.guess.env.insert(name.clone(), said.value.clone());
        }
    }

    fn language(&mut self, docker: Option<&Docker>) -> Option<Language> {
        let there: Vec<Language> = Language::ALL
            .into_iter()
            .filter(|language| language.markers().iter().any(|m| self.has(m)))
            .collect();
        let named = docker.and_then(|d| {
            let bases = d.image.other_bases.iter().rev();
            std::iter::once(&d.image.base)
                .chain(bases)
                .find_map(|base| {
                    // Without the tag: `node:20-python3` is node's.
                    let name = crate::image::Reference::parse(base).name;
                    let mut languages = there.iter();
                    languages.find(|l| l.images().iter().any(|part| names(name, part)))
                })
        });
        // A source of a few files may have nothing but programs.
        let interpreted = || {
            let name = crate::image::Reference::parse(&docker?.image.base).name;
            [Language::Python, Language::Ruby, Language::Node]
                .into_iter()
                .find(|l| l.images().iter().any(|part| names(name, part)))
        };
        named.or(there.first()).copied().or_else(interpreted)
    }

    fn why_not(&mut self, docker: Option<&Docker>, program: &Program, language: Option<Language>) {
        let source = self.shown(self.known.source);
        let mut reasons = Vec::new();
        match program {
            Program::No(reason) => reasons.push(reason.clone()),
            Program::Made(made) => reasons.push(made.reason()),
            _ => match docker {
                Some(docker) => {
                    reasons.push(format!("{} has no CMD and no ENTRYPOINT", docker.name))
                }
                None => reasons.push(format!("{source} has no Dockerfile")),
            },
        }
        if language.is_none() {
            reasons.push(format!(
                "{source} has no file that shows how it is built, such as package.json or requirements.txt"
            ));
        }
        reasons.append(&mut self.guess.reasons);
        self.guess.reasons = reasons;
    }
}

/// Whether one part of an image's name is `word`, or begins with it.
fn names(image: &str, word: &str) -> bool {
    image
        .split(['/', '-', '_', '.'])
        .any(|part| part.trim_end_matches(|c: char| c.is_ascii_digit()) == word)
}

/// Whether the source may appear in the pod at `path`: it would hide what is there.
pub(crate) fn may_appear(path: &Path, root: &Path) -> bool {
    const TAKEN: &[&str] = &[
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/media",
        "/mnt",
        "/nix",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/snap",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/include",
        "/usr/lib",
        "/usr/lib64",
        "/usr/libexec",
        "/usr/local",
        "/usr/local/bin",
        "/usr/local/lib",
        "/usr/local/sbin",
        "/usr/local/share",
        "/usr/sbin",
        "/usr/share",
        "/usr/src",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/tmp",
    ];
    // These are the system's, with everything below them.
    const TREES: &[&str] = &[
        "/proc", "/sys", "/dev", "/etc", "/bin", "/sbin", "/lib", "/lib64",
    ];
    // The project itself must stay visible at its own path.
    !TAKEN.iter().any(|t| path == Path::new(t))
        && !TREES.iter().any(|t| path.starts_with(t))
        && !root.starts_with(path)
}

/// Variables that speak of programs and folders of the image, which are not here.
fn is_about_the_image(name: &str, language: Option<Language>) -> bool {
    const NAMES: &[&str] = &[
        "PATH",
        "HOME",
        "VIRTUAL_ENV",
        "PYTHONHOME",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "JAVA_HOME",
        "GOPATH",
        "GOROOT",
        "GOCACHE",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "GEM_HOME",
        "DEBIAN_FRONTEND",
        "PNPM_HOME",
        "NVM_DIR",
    ];
    // Settings of tools that install: where they put things in the image.
    const PREFIXES: &[&str] = &[
        "UV_",
        "PIP_",
        "POETRY_",
        "PIPENV_",
        "BUNDLE_",
        "NPM_CONFIG_",
    ];
    let upper = name.to_ascii_uppercase();
    // Compiled programs run without what their build was told.
    let build_only = language == Some(Language::Go)
        && [
            "CGO_ENABLED",
            "GOOS",
            "GOARCH",
            "GOFLAGS",
            "GO111MODULE",
            "GOPROXY",
        ]
        .contains(&name);
    NAMES.contains(&name) || PREFIXES.iter().any(|p| upper.starts_with(p)) || build_only
}
