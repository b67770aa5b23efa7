//! The server's pod and its accounts.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use devenv_cluster::{Access, Bind, RUNTIME_ANNOTATION, RUNTIME_PROCESS, RunSpec};
use serde_json::{Value, json};

use super::{
    engine::{Engine, Flavour},
    template::REDO_LOG,
};

/// Where devenv's own pods live, apart from the application's.
pub const NAMESPACE: &str = "devenv-system";
/// The key of the Secret that holds the user.
pub const CREDENTIALS_USER: &str = "DB_USER";
/// The key of the Secret that holds the password.
pub const CREDENTIALS_PASSWORD: &str = "DB_PASSWORD";

/// Where the server listens.
pub(super) const PORT: u16 = 3306;
const NAME: &str = "cloudsql";
const SOCKET: &str = "mysqld.sock";

/// An account of the application's database.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user, allowed from every host.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database (schema) that it owns.
    pub database: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}@{})", self.user, self.database)
    }
}

/// How the server is run.
#[derive(Debug, Clone)]
pub struct Server {
    /// The engine of this machine.
    pub engine: Engine,
    /// Its data directory, prepared.
    pub data: PathBuf,
    /// A folder for what is made anew at each start.
    pub run: PathBuf,
    /// Who owns the data and runs the server.
    pub owner: (u32, u32),
}

impl Server {
    /// The image name under which the runtime finds the server.
    pub fn image(&self) -> String {
        format!(
            "devenv.local/cloudsql:{}-{}",
            self.engine.flavour, self.engine.version
        )
        .to_lowercase()
    }

    /// Writes the statements that the server runs at each start: account and
    /// database exist afterwards, with this password, whatever was there before.
    pub fn write_init_file(&self, account: &Credentials) -> io::Result<PathBuf> {
        let path = self.run.join("cloudsql-init.sql");
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(self.owner.0), Some(self.owner.1))?;
        }
        io::Write::write_all(&mut &file, init_statements(account).as_bytes())?;
        // One that a killed server left names a process that may be another by now.
        match fs::remove_file(self.data.join(format!("{SOCKET}.lock"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(path),
        }
    }

    /// How the runtime starts the server: small buffers, no replication, and every
    /// commit handed to the kernel, so that it survives the death of the server
    /// and of devenv (not a power cut, which a development database need not).
    pub fn run_spec(&self, init_file: &Path) -> RunSpec {
        let mut argv = vec![
            self.engine.server.display().to_string(),
            "--no-defaults".to_owned(),
            format!("--datadir={}", self.data.display()),
            // In the data directory: a longer path may not fit into a socket's address.
            format!("--socket={SOCKET}"),
            "--pid-file=mysqld.pid".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--skip-log-bin".to_owned(),
            "--character-set-server=utf8mb4".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            "--innodb-flush-log-at-trx-commit=2".to_owned(),
            "--performance-schema=OFF".to_owned(),
            "--max-connections=250".to_owned(),
            format!("--init-file={}", init_file.display()),
        ];
        match self.engine.flavour {
            Flavour::MariaDB => {
                argv.push(format!("--innodb-log-file-size={REDO_LOG}"));
                argv.push("--key-buffer-size=1M".to_owned());
                argv.push("--aria-pagecache-buffer-size=8M".to_owned());
            }
            Flavour::MySQL => {
                argv.push(format!("--innodb-redo-log-capacity={REDO_LOG}"));
                argv.push("--mysqlx=OFF".to_owned());
            }
        }
        argv.extend(Engine::user_argument(self.owner.0).map(str::to_owned));
        RunSpec {
            argv,
            cwd: self.data.clone(),
            workdir: None,
            env: Vec::new(),
            binds: vec![
                shown(&self.data, Access::ReadWrite),
                shown(&self.run, Access::ReadOnly),
            ],
            container: None,
        }
    }

    /// The objects that run the server: its namespace and a Deployment of one pod,
    /// which is stopped before the next is started, since two servers can't share
    /// a data directory. A killed server comes back at once, as Cloud SQL does.
    pub fn objects(&self) -> [Value; 2] {
        let labels = json!({
            "app.kubernetes.io/name": NAME,
            "app.kubernetes.io/managed-by": "devenv",
            "devenv.dev/role": "database",
        });
        [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "replicas": 1,
                    "strategy": {"type": "Recreate"},
                    "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
                    "template": {
                        "metadata": {
                            "labels": labels,
                            "annotations": {
                                "devenv.dev/restart-backoff": "100ms",
                                // It is an engine of this machine beside containers, too.
                                RUNTIME_ANNOTATION: RUNTIME_PROCESS,
                            },
                        },
                        "spec": {
                            "terminationGracePeriodSeconds": 20,
                            "containers": [{
                                "name": NAME,
                                "image": self.image(),
                                // Where pods share this machine's ports, these become its own.
                                "env": [{"name": "HOST", "value": "0.0.0.0"}, {"name": "PORT", "value": PORT.to_string()}],
                                "args": ["--bind-address=$(HOST)", "--port=$(PORT)"],
                                "ports": [{"name": "mysql", "containerPort": PORT}],
                                "readinessProbe": {"tcpSocket": {"port": "mysql"}, "periodSeconds": 1},
                                // So that busy services leave it its share of the CPUs.
                                "resources": {"requests": {"cpu": "1"}},
                            }],
                        },
                    },
                },
            }),
        ]
    }
}

/// A host path at its own place in the container.
fn shown(path: &Path, access: Access) -> Bind {
    Bind {
        source: path.to_owned(),
        target: path.to_owned(),
        access,
    }
}

fn init_statements(a: &Credentials) -> String {
    let (db, user, password) = (identifier(&a.database), text(&a.user), text(&a.password));
    // One statement a line: the server reads the file so.
    format!(
        "CREATE DATABASE IF NOT EXISTS {db} CHARACTER SET utf8mb4;\n\
         CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY {password};\n\
         ALTER USER {user}@'%' IDENTIFIED BY {password};\n\
         GRANT ALL PRIVILEGES ON {db}.* TO {user}@'%';\n"
    )
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// The process that serves a data directory, as /proc shows it; `None` while there is
/// none, or where it belongs to another user.
pub fn server_pid(data: &Path) -> Option<u32> {
    let wanted = format!("--datadir={}", data.display());
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let cmdline = fs::read(entry.path().join("cmdline")).ok()?;
        let mut args = cmdline.split(|b| *b == 0);
        args.any(|a| a == wanted.as_bytes()).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_quoted() {
        let a = Credentials {
            user: "o'hara".into(),
            password: "a\\b'c".into(),
            database: "tele`metry".into(),
        };
        let sql = init_statements(&a);
        assert!(
            sql.contains("'o''hara'@'%' IDENTIFIED BY 'a\\\\b''c'"),
            "{sql}"
        );
        assert!(sql.contains("`tele``metry`.*"), "{sql}");
        assert_eq!(sql.lines().count(), 4);
        assert!(!format!("{a:?}").contains("a\\b"));
    }
}
