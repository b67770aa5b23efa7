//! Virtual environments of Python images: each made once for the files that decide what
//! is in it, below the state folder.
//!
//! Nothing is run here. [`Venv::steps`] says what to run, and in which environment; paths
//! are baked into what is made, so it is made where it stays, and a marker that the last
//! step writes tells a whole one from one that was given up half-way.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use devenv_model::{ImageSource, PythonEnv, PythonKind};
use devenv_platform::host::HostCommand;
use sha2::{Digest, Sha256};

/// The folder of the state folder that holds them.
pub const FOLDER: &str = "venvs";

/// In every one that is whole.
const MARKER: &str = ".devenv-complete";

/// Why an image has no virtual environment.
#[derive(Debug, thiserror::Error)]
pub enum VenvError {
    /// There is no interpreter.
    #[error("{image} needs Python, and PATH has no python3")]
    NoPython {
        /// The image.
        image: String,
    },
    /// A file that decides what is in it.
    #[error("can't read {} for the virtual environment of {image}", path.display())]
    Read {
        /// The image.
        image: String,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The folder that holds it.
    #[error("can't make {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// All steps succeeded, and it isn't there.
    #[error("the virtual environment of {image} was made without its python: {}", path.display())]
    Incomplete {
        /// The image.
        image: String,
        /// Where it should be.
        path: PathBuf,
    },
}

/// The virtual environment that an image wants now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Venv {
    image: String,
    path: PathBuf,
    steps: Vec<HostCommand>,
}

impl Venv {
    /// Works out what the image wants; nothing if it wants none.
    ///
    /// `env` is the environment of installs: its `PATH` tells which interpreter and which
    /// tools there are. The interpreter is of the version that production runs, if there is
    /// one of that version (`python3.12`), else `python3`.
    ///
    /// # Errors
    /// When there is no interpreter, or a file can't be read.
    pub fn plan(
        state_dir: &Path,
        image: &ImageSource,
        env: &[(String, String)],
    ) -> Result<Option<Self>, VenvError> {
        let Some(wanted) = &image.python else {
            return Ok(None);
        };
        let tools = Tools::new(env);
        let python =
            tools
                .python(wanted.version.as_deref())
                .ok_or_else(|| VenvError::NoPython {
                    image: image.name.clone(),
                })?;
        let identity = tools.identity(&python, &wanted.dir);
        let digest = digest(&image.name, wanted, &identity)?;
        let name = format!("{}-{}", file_name(&image.name), &digest[..12]);
        let path = state_dir.join(FOLDER).join(name);
        let steps = Steps {
            wanted,
            path: &path,
            python: &python,
            tools: &tools,
            commands: Vec::new(),
        };
        let steps = if is_whole(&path) {
            Vec::new()
        } else {
            steps.all()
        };
        Ok(Some(Self {
            image: image.name.clone(),
            path,
            steps,
        }))
    }

    /// Where it is: absolute if the state folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to run, one after the other, as the owner of the checkout; nothing if it is
    /// there already. When one fails, the rest must not be run: the next plan begins anew.
    pub fn steps(&self) -> &[HostCommand] {
        &self.steps
    }

    /// Makes the folder that holds it, for the owner of the checkout to write to. Comes
    /// before the steps.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn prepare(&self, owner: (u32, u32)) -> Result<(), VenvError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let failed = |source| VenvError::Folder {
            path: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        if nix::unistd::geteuid().is_root() && owner.0 != 0 {
            lchown(folder, Some(owner.0), Some(owner.1)).map_err(failed)?;
        }
        Ok(())
    }

    /// Comes after the last step: whether what they made is whole.
    ///
    /// # Errors
    /// When it isn't.
    pub fn finish(&self) -> Result<(), VenvError> {
        if is_whole(&self.path) {
            return Ok(());
        }
        Err(VenvError::Incomplete {
            image: self.image.clone(),
            path: self.path.clone(),
        })
    }

    /// The environment of a command that finds it active, as `bin/activate` would make it.
    pub fn activate(&self, env: &[(String, String)]) -> Vec<(String, String)> {
        activated(&self.path, env)
    }
}

/// Removes the virtual environments below the state folder that nobody uses: neither a
/// plan nor a pod that still runs. What can't be removed now is tried again next time.
pub fn prune(state_dir: &Path, in_use: &BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(state_dir.join(FOLDER)) else {
        return;
    };
    for path in entries.flatten().map(|e| e.path()) {
        let unused = !in_use
            .iter()
            .any(|used| path == *used || path == tools_of(used));
        if unused && let Err(e) = fs::remove_dir_all(&path) {
            tracing::warn!(error = %e, path = %path.display(), "can't remove an old virtual environment");
        }
    }
}

/// The folder of an installed package in the environment at `path`.
pub fn package(path: &Path, name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(path.join("lib")).ok()?.flatten();
    let mut packages = versions.map(|v| v.path().join("site-packages").join(name));
    packages.find(|p| p.join("__main__.py").is_file())
}

/// The marker of one whose interpreter has gone says nothing.
fn is_whole(path: &Path) -> bool {
    path.join(MARKER).exists() && path.join("bin/python").exists()
}

/// The environment of a command that finds the one at `path` active.
pub(crate) fn activated(path: &Path, env: &[(String, String)]) -> Vec<(String, String)> {
    let bin = path.join("bin").display().to_string();
    let mut out: Vec<(String, String)> = Vec::new();
    let mut search = bin.clone();
    for (name, value) in env {
        match name.as_str() {
            "VIRTUAL_ENV" | "PYTHONHOME" => {}
            "PATH" => search = format!("{bin}:{value}"),
            _ => out.push((name.clone(), value.clone())),
        }
    }
    out.push(("PATH".into(), search));
    out.push(("VIRTUAL_ENV".into(), path.display().to_string()));
    out
}

/// What may stand in a file's name.
fn file_name(image: &str) -> String {
    image
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// Names and contents of the files count, and so do the interpreter and, for what is
/// installed editable, where the project is.
fn digest(image: &str, wanted: &PythonEnv, interpreter: &str) -> Result<String, VenvError> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(interpreter.as_bytes());
    add(format!("{:?} {}", wanted.kind, wanted.project).as_bytes());
    add(wanted.dir.as_os_str().as_encoded_bytes());
    for package in &wanted.packages {
        add(package.as_bytes());
    }
    for path in &wanted.files {
        let contents = fs::read(path).map_err(|source| VenvError::Read {
            image: image.to_owned(),
            path: path.clone(),
            source,
        })?;
        add(path.as_os_str().as_encoded_bytes());
        add(&contents);
    }
    for path in &wanted.requirements {
        add(path.as_os_str().as_encoded_bytes());
    }
    Ok(hex::encode(hash.finalize()))
}

/// The programs that installs find.
struct Tools<'e> {
    env: &'e [(String, String)],
}

impl<'e> Tools<'e> {
    fn new(env: &'e [(String, String)]) -> Self {
        Self { env }
    }

    fn var(&self, name: &str) -> Option<&'e str> {
        let found = self.env.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let dirs = std::env::split_paths(self.var("PATH").unwrap_or(""));
        dirs.filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(program))
            .find(|path| {
                let meta = fs::metadata(path);
                meta.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            })
    }

    fn python(&self, version: Option<&str>) -> Option<PathBuf> {
        let exact = version.and_then(|v| self.itself(&format!("python{v}")));
        exact
            .or_else(|| self.find("python3"))
            .or_else(|| self.find("python"))
    }

    /// The interpreter of this name. A version manager's stand-in fails unless that version
    /// is the chosen one, so what it stands for is looked for where pyenv and asdf keep it.
    fn itself(&self, program: &str) -> Option<PathBuf> {
        let found = self.find(program)?;
        let Some(shims) = found.parent().filter(|dir| dir.ends_with("shims")) else {
            return Some(found);
        };
        let root = shims.parent()?;
        ["versions", "installs/python"]
            .into_iter()
            .flat_map(|kept| fs::read_dir(root.join(kept)).into_iter().flatten())
            .flatten()
            .map(|version| version.path().join("bin").join(program))
            .filter(|path| path.is_file())
            .max()
    }

    /// What changes when another interpreter answers to the same name: the file it is. A
    /// version manager's stand-in is one file for all versions, so what it reads counts.
    fn identity(&self, python: &Path, dir: &Path) -> String {
        let real = python.canonicalize().unwrap_or_else(|_| python.to_owned());
        let mut identity = real.display().to_string();
        if !real.parent().is_some_and(|p| p.ends_with("shims")) {
            return identity;
        }
        let versions = dir.ancestors().map(|d| d.join(".python-version"));
        let global = real.ancestors().nth(2).map(|root| root.join("version"));
        let read = versions
            .chain(global)
            .find_map(|f| fs::read_to_string(f).ok());
        for part in [
            self.var("PYENV_VERSION").map(str::to_owned),
            self.var("ASDF_PYTHON_VERSION").map(str::to_owned),
            read,
        ] {
            identity.push('\0');
            identity.push_str(part.as_deref().unwrap_or(""));
        }
        identity
    }
}

/// Beside a virtual environment, while it is made: the tool that its lock file is for,
/// where the machine has none.
fn tools_of(path: &Path) -> PathBuf {
    path.with_added_extension("tools")
}

struct Steps<'s> {
    wanted: &'s PythonEnv,
    path: &'s Path,
    python: &'s Path,
    tools: &'s Tools<'s>,
    commands: Vec<HostCommand>,
}

impl Steps<'_> {
    fn all(mut self) -> Vec<HostCommand> {
        let (path, tools) = (text(self.path), text(&tools_of(self.path)));
        // What was given up half-way.
        self.run(&["rm", "-rf", "--", &path, &tools], &[]);
        match self.wanted.kind {
            PythonKind::Requirements | PythonKind::Pyproject => self.pip(),
            PythonKind::Uv => self.uv(),
            PythonKind::Poetry => self.poetry(),
            PythonKind::Pipenv => self.pipenv(),
        }
        self.run(&["rm", "-rf", "--", &tools], &[]);
        self.run(&["touch", "--", &format!("{path}/{MARKER}")], &[]);
        self.commands
    }

    /// One more command, in the folder of the files.
    fn run(&mut self, argv: &[&str], more: &[(&str, &str)]) {
        // An environment that is active in the terminal is not the one to install into.
        let mut env: Vec<(String, String)> = self
            .tools
            .env
            .iter()
            .filter(|(name, _)| {
                ![
                    "VIRTUAL_ENV",
                    "PYTHONHOME",
                    "PYTHONPATH",
                    "PIP_USER",
                    "PIP_TARGET",
                ]
                .contains(&name.as_str())
                    && more.iter().all(|(n, _)| n != name)
            })
            .cloned()
            .collect();
        env.extend(more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        self.commands.push(HostCommand {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env,
            cwd: self.wanted.dir.clone(),
        });
    }

    /// An empty environment.
    fn create(&mut self, uv: Option<&str>) {
        let (python, path) = (text(self.python), text(self.path));
        match uv {
            Some(uv) => self.run(
                &[uv, "venv", "--no-project", "--python", &python, &path],
                &[],
            ),
            None => self.run(&[&python, "-m", "venv", &path], &[]),
        }
    }

    /// Installs into the environment at `path` with its own pip.
    fn pip_install(&mut self, path: &Path, what: &[&str]) {
        let python = text(&path.join("bin/python"));
        let mut argv: Vec<&str> = vec![&python, "-m", "pip", "install", "--no-input"];
        argv.push("--disable-pip-version-check");
        argv.extend(what);
        self.run(&argv, &[]);
    }

    fn pip(&mut self) {
        let mut what: Vec<String> = Vec::new();
        for file in &self.wanted.requirements {
            what.extend(["-r".into(), text(file)]);
        }
        what.extend(self.wanted.packages.iter().cloned());
        if self.wanted.project {
            what.extend(["-e".into(), ".".into()]);
        }
        let what: Vec<&str> = what.iter().map(String::as_str).collect();
        let uv = self.tools.find("uv").map(|uv| text(&uv));
        self.create(uv.as_deref());
        if what.is_empty() {
            return;
        }
        match uv {
            None => self.pip_install(self.path, &what),
            Some(uv) => {
                let python = text(&self.path.join("bin/python"));
                // Pods can't write to it: what isn't compiled now is compiled at each start.
                let mut argv = vec![&*uv, "pip", "install", "--compile-bytecode"];
                argv.extend(["--python", &*python]);
                argv.extend(what);
                self.run(&argv, &[]);
            }
        }
    }

    /// A tool of this machine, or one that is fetched for this once.
    fn tool(&mut self, name: &str) -> String {
        if let Some(found) = self.tools.find(name) {
            return text(&found);
        }
        let (python, tools) = (text(self.python), tools_of(self.path));
        self.run(&[&python, "-m", "venv", &text(&tools)], &[]);
        self.pip_install(&tools, &[name]);
        text(&tools.join("bin").join(name))
    }

    fn uv(&mut self) {
        let uv = self.tool("uv");
        let (python, path) = (text(self.python), text(self.path));
        self.run(
            &[
                &uv,
                "sync",
                "--frozen",
                "--no-dev",
                "--compile-bytecode",
                "--python",
                &python,
            ],
            &[("UV_PROJECT_ENVIRONMENT", &path)],
        );
    }

    /// Runs a tool that installs into the environment that is active.
    fn run_active(&mut self, argv: &[&str], more: &[(&str, &str)]) {
        let env = activated(self.path, self.tools.env);
        let named = ["PATH", "VIRTUAL_ENV"];
        let active = env.iter().filter(|(n, _)| named.contains(&n.as_str()));
        let active = active.map(|(n, v)| (n.as_str(), v.as_str()));
        let more: Vec<(&str, &str)> = active.chain(more.iter().copied()).collect();
        self.run(argv, &more);
    }

    fn poetry(&mut self) {
        let poetry = self.tool("poetry");
        self.create(None);
        let mut argv = vec![&*poetry, "install", "--only", "main", "--compile"];
        argv.extend(["--no-interaction", "--no-ansi"]);
        if !self.wanted.project {
            argv.push("--no-root");
        }
        self.run_active(&argv, &[("POETRY_VIRTUALENVS_CREATE", "false")]);
    }

    fn pipenv(&mut self) {
        let pipenv = self.tool("pipenv");
        self.create(None);
        let locked = self
            .wanted
            .files
            .iter()
            .any(|f| f.ends_with("Pipfile.lock"));
        let argv: &[&str] = if locked {
            &[&pipenv, "sync"]
        } else {
            &[&pipenv, "install", "--skip-lock"]
        };
        // It says on every run that it uses the active environment, as it is meant to.
        self.run_active(argv, &[("PIPENV_VERBOSITY", "-1"), ("PIPENV_NOSPIN", "1")]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
