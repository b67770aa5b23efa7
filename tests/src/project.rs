//! A copy of the reference application, and `devenv` run in it as a person would.

use crate::inventory::Scope;
pub use crate::run::Run;
use crate::run::finish;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a command may take, when a test says nothing else.
const COMMAND: Duration = Duration::from_secs(60);
/// How long `up -d` may take when nothing has to be compiled: the first one makes
/// the database.
const UP: Duration = Duration::from_secs(120);

/// Whether the copy's services are built by devenv, or lie there ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// The binaries of this workspace's build are put where the builds would put
    /// them, and the build commands only look whether they are there: `up` is then
    /// as fast as a warm one.
    Prebuilt,
    /// As in the checkout: `up` compiles.
    FromSource,
}

/// A project in a folder of its own. Dropping it says `down -v` and removes it.
#[derive(Debug)]
pub struct Project {
    folder: tempfile::TempDir,
    binary: PathBuf,
    /// Whom it was given to.
    user: Option<User>,
    /// Whether that user runs devenv, and not this process's own.
    is_users: bool,
    /// What devenv's environment has besides.
    variables: BTreeMap<String, OsString>,
}

/// A user who has no entry in /etc/passwd, as in a container.
#[derive(Debug)]
struct User {
    id: u32,
    /// With a home, and a program that everybody can read: the checkout may lie in
    /// root's home.
    folder: tempfile::TempDir,
    /// A group that the user is in besides.
    group: Option<u32>,
}

/// What every user finds: version managers in root's home are closed to others.
const PATH_OF_ALL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Project {
    /// A copy of the reference application with its services built.
    pub fn reference() -> Self {
        Self::copy(Services::Prebuilt)
    }

    /// A copy of the checkout's files: those that git knows, and those that it
    /// would take.
    pub fn copy(services: Services) -> Self {
        Self::empty().fill(services)
    }

    /// The same, in a temporary folder that always has the same path; what lay
    /// there is removed.
    pub fn copy_named(services: Services, name: &str) -> Self {
        let prefix = format!("bb-{name}-{}", nix::unistd::geteuid());
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&prefix));
        let mut builder = tempfile::Builder::new();
        Self::make(builder.prefix(&prefix).rand_bytes(0)).fill(services)
    }

    fn fill(self, services: Services) -> Self {
        let project = self;
        let checkout = checkout();
        for file in tracked(&checkout) {
            let to = project.path().join(&file);
            fs::create_dir_all(to.parent().unwrap_or(&to)).expect("a folder in the copy");
            fs::copy(checkout.join(&file), &to)
                .unwrap_or_else(|error| panic!("{} cannot be copied: {error}", file.display()));
        }
        if services == Services::Prebuilt {
            project.put_services(&checkout);
        }
        project
    }

    /// An empty folder.
    pub fn empty() -> Self {
        Self::make(tempfile::Builder::new().prefix("bb-"))
    }

    fn make(builder: &mut tempfile::Builder<'_, '_>) -> Self {
        Self {
            folder: builder.tempdir().expect("a temporary folder"),
            binary: binary(),
            user: None,
            is_users: false,
            variables: BTreeMap::new(),
        }
    }

    /// Gives the project, as it is now, to a user of this id, who runs devenv from now
    /// on with a home of their own.
    ///
    /// # Panics
    /// When this process may not give files away: only root may.
    pub fn give_to(&mut self, id: u32) {
        let folder = tempfile::Builder::new().prefix("bb-user-").tempdir();
        let folder = folder.expect("a temporary folder");
        let program = folder.path().join("devenv");
        fs::copy(&self.binary, &program).expect("the program is copied");
        fs::create_dir(folder.path().join("home")).expect("a home");
        for root in [self.path(), folder.path()] {
            give(root, id);
        }
        self.binary = program;
        self.user = Some(User {
            id,
            folder,
            group: None,
        });
        self.is_users = true;
    }

    /// Puts the user whom it was given to into a group of this id.
    ///
    /// # Panics
    /// When it was given to nobody.
    pub fn put_into_group(&mut self, id: u32) {
        let user = self.user.as_mut().expect("it was given to somebody");
        user.group = Some(id);
    }

    /// Copies a program to where the user whom it was given to finds it.
    ///
    /// # Panics
    /// When it was given to nobody.
    pub fn give_program(&mut self, program: &Path) {
        let user = self.user.as_ref().expect("it was given to somebody");
        let name = program.file_name().expect("a program has a name");
        let to = user.folder.path().join(name);
        fs::copy(program, &to).expect("the program is copied");
        let path = format!("{}:{PATH_OF_ALL}", user.folder.path().display());
        self.set_variable("PATH", path);
    }

    /// Whether the user whom it was given to runs devenv from now on, or this process's
    /// own.
    pub fn set_users(&mut self, is_users: bool) {
        self.is_users = is_users;
    }

    /// Links what `run` names in each `[image.NAME]`, and the built page, into the
    /// copy, and replaces the build commands.
    fn put_services(&self, checkout: &Path) {
        let config = self.path().join("devenv.toml");
        let text = fs::read_to_string(&config).expect("the checkout has a devenv.toml");
        let mut table: toml::Table = text.parse().expect("devenv.toml is TOML");
        let images = table.get_mut("image").and_then(toml::Value::as_table_mut);
        for (name, image) in images.into_iter().flatten() {
            let image = image.as_table_mut().expect("[image.NAME] is a table");
            let word = |image: &toml::Table, key: &str| {
                image
                    .get(key)
                    .and_then(toml::Value::as_str)
                    .map(str::to_owned)
            };
            let run = image
                .get("run")
                .and_then(toml::Value::as_array)
                .and_then(|run| run.first()?.as_str())
                .unwrap_or_else(|| panic!("image {name}: `run` is not an array of words"))
                .to_owned();
            let workdir = word(image, "workdir")
                .or_else(|| word(image, "source"))
                .unwrap_or_else(|| ".".to_owned());
            let program = Path::new(&run).file_name().expect("a program has a name");
            let built = service(program);
            assert!(
                built.is_file(),
                "{} is missing; `cargo build --workspace` makes it",
                built.display()
            );
            let to = self.path().join(&workdir).join(&run);
            fs::create_dir_all(to.parent().unwrap_or(&to)).expect("a folder in the copy");
            if !to.exists() && fs::hard_link(&built, &to).is_err() {
                fs::copy(&built, &to).expect("a program is copied");
            }
            let look = ["test", "-x", run.as_str()].map(toml::Value::from);
            image.insert("build".to_owned(), toml::Value::Array(look.to_vec()));
            image.remove("install");
        }
        fs::write(&config, table.to_string()).expect("devenv.toml is written");
        let page = Path::new("services/frontend/web/dist");
        copy_folder(&checkout.join(page), &self.path().join(page));
    }

    /// The project's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the project.
    pub fn write(&self, file: &str, text: &str) {
        let file = self.path().join(file);
        fs::create_dir_all(file.parent().unwrap_or(&file)).expect("a folder in the copy");
        fs::write(&file, text).expect("a file in the copy");
    }

    /// Changes `devenv.toml`.
    pub fn configure(&self, change: impl FnOnce(&mut toml::Table)) {
        let config = self.path().join("devenv.toml");
        let text = fs::read_to_string(&config).expect("devenv.toml");
        let mut table: toml::Table = text.parse().expect("devenv.toml is TOML");
        change(&mut table);
        fs::write(&config, table.to_string()).expect("devenv.toml is written");
    }

    /// The inventory's scope of this project, as far as it is known from outside.
    pub fn scope(&self) -> Scope {
        Scope::new(self.path(), &self.binary)
    }

    /// Runs `devenv ARGUMENTS` in the project.
    pub async fn run(&self, arguments: &[&str]) -> Run {
        self.run_within(COMMAND, arguments).await
    }

    /// Runs `devenv ARGUMENTS`; kills it, with all that it started in its process
    /// group, when the time is over.
    ///
    /// # Panics
    /// When the time is over, with what was printed until then.
    pub async fn run_within(&self, limit: Duration, arguments: &[&str]) -> Run {
        let mut command = self.command(arguments);
        let words = arguments.join(" ");
        let run = tokio::task::spawn_blocking(move || finish(&mut command, limit, words));
        run.await.expect("running a command does not panic")
    }

    /// `devenv ARGUMENTS`, not yet run, with a plain environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.user.as_ref().filter(|_| self.is_users) {
            Some(user) => {
                // Of root's groups none stays.
                let groups = match user.group {
                    Some(group) => format!("--groups={group}"),
                    None => "--clear-groups".to_owned(),
                };
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", user.id))
                    .arg(format!("--regid={}", user.id))
                    .args([&groups, "--"])
                    .arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command
            .arg("-C")
            .arg(self.path())
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .env("NO_COLOR", "1");
        for name in [
            "RUST_LOG",
            "CARGO_TARGET_DIR",
            "KUBECONFIG",
            "CARGO_MANIFEST_DIR",
        ] {
            command.env_remove(name);
        }
        command.envs(&self.variables);
        if let Some(user) = self.user.as_ref().filter(|_| self.is_users) {
            let home = user.folder.path().join("home");
            command.env_clear();
            command.env("HOME", home).env("PATH", PATH_OF_ALL);
            command.env("NO_COLOR", "1").envs(&self.variables);
        }
        command
    }

    /// Every command has this variable from now on.
    pub fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// `devenv up -d`, which must succeed.
    pub async fn up(&self) -> Run {
        let run = self.run_within(UP, &["up", "-d"]).await;
        assert!(run.ok(), "{run}\n{}", self.supervisor_log());
        run
    }

    /// `devenv down ARGUMENTS`, which must succeed.
    pub async fn down(&self, arguments: &[&str]) -> Run {
        let run = self.run(&[&["down"], arguments].concat()).await;
        assert!(run.ok(), "{run}");
        run
    }

    /// `devenv url WHAT`.
    pub async fn url(&self, what: &str) -> String {
        let run = self.run(&["url", what]).await;
        assert!(run.ok(), "{run}");
        run.stdout.trim().to_owned()
    }

    /// The Ingress's base URL, without a slash at its end.
    pub async fn ingress(&self) -> String {
        self.url("ingress").await.trim_end_matches('/').to_owned()
    }

    /// The inventory's scope of this running project: with its own address, and
    /// all that its supervisor has now.
    pub async fn scope_of_all(&self) -> Scope {
        let mut scope = self.scope();
        let own = self.run(&["url", "address"]).await;
        if let (true, Some(address)) = (own.ok(), address_of(own.stdout.trim())) {
            scope = scope.address(address);
        }
        scope.learn(self.supervisor().expect("the lock names the supervisor"));
        scope
    }

    /// `devenv status -o json`.
    pub async fn status(&self) -> Value {
        let run = self.run(&["status", "-o", "json"]).await;
        run.json()
    }

    /// The supervisor's process, by the lock that it holds.
    pub fn supervisor(&self) -> Option<u32> {
        let text = fs::read_to_string(self.path().join(".devenv/supervisor.lock")).ok()?;
        let lock: Value = serde_json::from_str(&text).ok()?;
        let pid = u32::try_from(lock["pid"].as_u64()?).ok()?;
        // The file outlives its writer; another program may have the number now.
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let same = program.file_name() == self.binary.file_name()
            || program.to_string_lossy().contains("devenv");
        same.then_some(pid)
    }

    /// The kubeconfig's path.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path().join(".devenv/kubeconfig")
    }

    /// The end of what the supervisor logged.
    pub fn supervisor_log(&self) -> String {
        let log = self.path().join(".devenv/supervisor.log");
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if self.path().join(".devenv").exists() {
            if std::thread::panicking() {
                eprintln!("the end of supervisor.log:\n{}", self.supervisor_log());
            }
            let mut down = self.command(&["down", "-v"]);
            let run = finish(&mut down, Duration::from_secs(40), "down -v".to_owned());
            if !run.ok() {
                eprintln!("{run}");
            }
            if let Some(pid) = self.supervisor() {
                kill(pid);
            }
        }
    }
}

/// SIGKILL; a process that is gone already is fine.
pub fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// The host of a URL, when it is an IP address.
pub fn address_of(url: &str) -> Option<IpAddr> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split('/').next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}

/// The checkout that these tests were built from.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo put this build's programs: two folders above the test itself.
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a program knows where it is");
    let folder = test.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    }
}

/// A service as this workspace has built it: of this build, or, where that is the soak's
/// with optimisation, of the one that people have.
fn service(program: &std::ffi::OsStr) -> PathBuf {
    let build = build_folder();
    let own = build.join(program);
    match build.parent() {
        Some(target) if !own.is_file() => target.join("debug").join(program),
        _ => own,
    }
}

/// Where things that tests need and that are costly to make are kept.
pub fn kept_folder(name: &str) -> PathBuf {
    let build = build_folder();
    let folder = build
        .parent()
        .unwrap_or(&build)
        .join("test-kept")
        .join(name);
    fs::create_dir_all(&folder).expect("a folder in the build folder");
    folder
}

/// Whether the `devenv` under test is a release build, as the soaks have it.
pub fn is_built_with_optimisation() -> bool {
    binary()
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
}

/// The `devenv` under test: this build's, or the one that `DEVENV_BIN` names.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    let binary =
        std::env::var_os("DEVENV_BIN").map_or_else(|| build_folder().join("devenv"), PathBuf::from);
    assert!(
        binary.is_file(),
        "{} is missing; `cargo build --workspace` makes it",
        binary.display()
    );
    binary
}

/// The files that git knows or would take, relative to the checkout.
fn tracked(checkout: &Path) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(checkout)
        .stdin(Stdio::null())
        .output()
        .expect("git is here");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        // A file that was deleted and not yet committed so.
        .filter(|file| checkout.join(file).is_file())
        .collect()
}

/// `chown -R`, of what is no link.
fn give(path: &Path, id: u32) {
    let found = fs::symlink_metadata(path).expect("a file of the copy");
    if found.is_file() && found.nlink() > 1 {
        // The file of the build stays the build's.
        let own = path.with_extension("own");
        fs::copy(path, &own)
            .and_then(|_| fs::rename(&own, path))
            .expect("a file is copied");
    }
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("root can give files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a folder of the copy").flatten() {
            give(&entry.path(), id);
        }
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    fs::create_dir_all(to).expect("a folder in the copy");
    for entry in entries.flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file is copied");
        }
    }
}

/// What a program and its environment print, for clients in other languages.
///
/// # Errors
/// The command's name and its error output.
pub async fn output_of(
    program: &Path,
    arguments: &[&str],
    environment: &BTreeMap<&str, String>,
    limit: Duration,
) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    match tokio::time::timeout(limit, command.output()).await {
        Err(_) => Err(format!("{shown}: not over within {limit:?}")),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => Err(format!(
            "{shown}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_url_is_found() {
        for (url, address) in [
            ("http://127.3.4.5/", Some("127.3.4.5")),
            ("http://127.0.0.1:8080", Some("127.0.0.1")),
            ("mysql://u:p@127.0.0.1:3307/telemetry", Some("127.0.0.1")),
            ("http://[::1]:80/x", Some("::1")),
            ("http://localhost/", None),
            ("nonsense", None),
        ] {
            assert_eq!(
                address_of(url),
                address.map(|a| a.parse().unwrap()),
                "{url}"
            );
        }
    }

    #[test]
    fn a_daemon_that_keeps_the_output_does_not_keep_the_test() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; setsid sleep 3 & exit 3"]);
        let run = finish(&mut command, Duration::from_secs(2), "sh".to_owned());
        assert_eq!(run.code, Some(3));
        assert_eq!(
            (run.stdout.as_str(), run.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(run.took < Duration::from_secs(2));
    }

    #[test]
    #[should_panic(expected = "not over within")]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60; sleep 60"]);
        finish(&mut command, Duration::from_millis(200), "sh".to_owned());
    }
}
