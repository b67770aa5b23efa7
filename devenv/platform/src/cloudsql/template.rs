//! Data directories: one prepared template per engine version, copied for each
//! project, so that a new database costs a copy of 26 MB and not an installation.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::engine::{Engine, Flavour, which};

/// Changes when the way a template is made changes: old ones are then left alone
/// and new ones made beside them.
const RECIPE: u32 = 1;

/// Size of the redo log. Small, because it is copied with each database; large
/// enough for transactions of 1,000 records.
pub(super) const REDO_LOG: &str = "8M";

/// Why a data directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The engine's own installer failed.
    #[error("{program} could not prepare a data directory: {output}")]
    Install {
        /// The program that was run.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// The data directory belongs to another engine or version.
    #[error("{} holds the data of {found}, and the engine here is {wanted}; go back to {found}, or throw the data away with: devenv down -v", data.display())]
    OtherEngine {
        /// The data directory.
        data: PathBuf,
        /// What made it.
        found: String,
        /// What would use it now.
        wanted: String,
    },
    /// A file could not be written.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TemplateError {
    let path = path.to_owned();
    move |source| TemplateError::Io { what, path, source }
}

/// Makes `data` hold an initialised database of `engine`, owned by `owner`.
///
/// Existing data stays as it is. A copy that was cut short is begun again: the
/// directory appears under its name only when it is whole.
pub fn ensure_data(
    engine: &Engine,
    cache: &Path,
    data: &Path,
    owner: (u32, u32),
) -> Result<bool, TemplateError> {
    let stamp = data.with_extension("engine");
    let now = format!("{} {}", engine.flavour, series(&engine.version));
    if data.exists() {
        let found = fs::read_to_string(&stamp).unwrap_or_else(|_| now.clone());
        if found != now {
            return Err(TemplateError::OtherEngine {
                data: data.to_owned(),
                found,
                wanted: now,
            });
        }
        return Ok(false);
    }
    let template = ensure_template(engine, cache)?;
    let parent = data.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    let part = data.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).map_err(io_error("remove", &part))?;
    }
    copy_tree(&template, &part, owner).map_err(io_error("copy the template to", &part))?;
    fs::write(&stamp, now).map_err(io_error("write", &stamp))?;
    fs::rename(&part, data).map_err(io_error("name", data))?;
    Ok(true)
}

/// `10.11.19` → `10.11`: data moves between patch releases, not between series.
fn series(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn ensure_template(engine: &Engine, cache: &Path) -> Result<PathBuf, TemplateError> {
    let name = format!("{}-{}-r{RECIPE}", engine.flavour, engine.version).to_lowercase();
    let template = cache.join(&name);
    if template.exists() {
        return Ok(template);
    }
    fs::create_dir_all(cache).map_err(io_error("make", cache))?;
    // Two projects may come up at once: the lock makes one wait for the other's work.
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).map_err(io_error("write", &lock_path))?;
    lock.lock().map_err(io_error("lock", &lock_path))?;
    if template.exists() {
        return Ok(template);
    }
    let part = cache.join(format!("{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).map_err(io_error("remove", &part))?;
    }
    install(engine, cache, &part)?;
    fs::rename(&part, &template).map_err(io_error("name", &template))?;
    Ok(template)
}

fn install(engine: &Engine, cache: &Path, into: &Path) -> Result<(), TemplateError> {
    let mut command = match engine.flavour {
        Flavour::MariaDB => {
            // Its anonymous users would shadow 'telemetry'@'%' for clients whose
            // host name matches.
            let extra = cache.join("extra.sql");
            fs::write(
                &extra,
                "DELETE FROM mysql.global_priv WHERE User='';\nFLUSH PRIVILEGES;\n",
            )
            .map_err(io_error("write", &extra))?;
            let program =
                which("mariadb-install-db").unwrap_or_else(|| "mariadb-install-db".into());
            let mut c = Command::new(program);
            c.args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--extra-file={}", extra.display()))
            .arg(format!("--innodb-log-file-size={REDO_LOG}"));
            c
        }
        Flavour::MySQL => {
            let mut c = Command::new(&engine.server);
            c.args(["--no-defaults", "--initialize-insecure"])
                .arg(format!("--innodb-redo-log-capacity={REDO_LOG}"));
            c
        }
    };
    // A server that starts sweeps its tmpdir, tables of other servers included.
    let tmp = into.with_extension("tmp");
    fs::create_dir_all(&tmp).map_err(io_error("make", &tmp))?;
    command
        .arg(format!("--datadir={}", into.display()))
        .arg(format!("--tmpdir={}", tmp.display()))
        .stdin(Stdio::null());
    command.args(Engine::user_argument(nix::unistd::geteuid().as_raw()));
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |output: String| TemplateError::Install {
        program: program.clone(),
        output,
    };
    let out = command.output().map_err(|e| failed(e.to_string()))?;
    fs::remove_dir_all(&tmp).map_err(io_error("remove", &tmp))?;
    if out.status.success() && into.join("mysql").is_dir() {
        return Ok(());
    }
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let tail: Vec<&str> = text.lines().rev().take(8).collect();
    Err(failed(
        tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
    ))
}

fn copy_tree(from: &Path, to: &Path, owner: (u32, u32)) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    own(to, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            own(&target, owner)?;
        }
    }
    Ok(())
}

/// Only root can give files away; anybody else owns what they copy already.
fn own(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(uid), Some(gid))
    } else {
        Ok(())
    }
}
