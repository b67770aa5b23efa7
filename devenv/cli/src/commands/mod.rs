//! The commands, a file each.

mod ask;
mod debug;
mod doctor;
mod down;
mod ingress_controller;
mod logs;
mod reload;
mod reloads;
mod status;
mod supervise;
mod test;
mod traffic;
mod up;
mod url;
mod verdict;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use devenv_engine::{IngressController, Isolation, Runtime, TargetKind};
use devenv_model::{LoadOptions, is_label};
use devenv_platform::Endpoints;

use crate::{error::CliError, project::Project, render::Format};

/// What every command is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// `-C`.
    pub directory: Option<PathBuf>,
    /// `-n`.
    pub namespace: Option<String>,
    /// `--run`.
    pub run: Option<String>,
    /// `-o`.
    pub format: Format,
}

impl Context {
    /// The project that the command is about.
    pub fn project(&self) -> Result<Project, CliError> {
        Project::find(self.directory.as_deref(), self.run.as_deref())
    }

    /// How its files are read.
    pub fn load_options(&self, profile: Option<&str>) -> LoadOptions {
        LoadOptions {
            namespace: self.namespace.clone(),
            profile: profile.map(str::to_owned),
            ..LoadOptions::default()
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the system up from its manifests
    Up(up::UpArgs),
    /// Stop everything; the database's data stays
    Down(down::DownArgs),
    /// Say what runs, how well, and where
    #[command(visible_alias = "ps")]
    Status(status::StatusArgs),
    /// Show what services print
    Logs(logs::LogsArgs),
    /// Build and roll services now, changed or not
    Reload(reload::ReloadArgs),
    /// List what saved files led to, and how long each step took
    Reloads(reloads::ReloadsArgs),
    /// Run a service under its language's debugger
    Debug(debug::DebugArgs),
    /// Prove the system: run its suites and say what came of it
    Test(test::TestArgs),
    /// Say whether a verdict applies to exactly this tree, and why not
    Verdict(verdict::VerdictArgs),
    /// Print the address of something
    Url(url::UrlArgs),
    /// Send telemetry of this machine to the Ingress and report what came of it
    Traffic(traffic::TrafficArgs),
    /// Say what this machine lacks and the command that mends it
    Doctor(doctor::DoctorArgs),
    /// Serve a cluster's Ingresses, from a pod of it
    #[command(hide = true)]
    IngressController(ingress_controller::IngressControllerArgs),
    /// Hold a system up in the background (`up -d` starts it)
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
}

impl Command {
    /// Whether it holds the system itself or makes load, and so wants more than one
    /// thread.
    pub fn is_long_running(&self) -> bool {
        matches!(
            self,
            Self::Supervise(_) | Self::Traffic(_) | Self::Test(_) | Self::IngressController(_)
        ) || matches!(self, Self::Up(a) if !a.detach)
    }

    /// Runs it.
    pub async fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Up(a) => up::up(a, context).await,
            Self::Down(a) => down::down(a, context).await,
            Self::Status(a) => status::status(a, context).await,
            Self::Logs(a) => logs::logs(a, context).await,
            Self::Reload(a) => reload::reload(a, context).await,
            Self::Reloads(a) => reloads::reloads(a, context).await,
            Self::Debug(a) => debug::debug(a, context).await,
            Self::Test(a) => test::test(a, context).await,
            Self::Verdict(a) => verdict::verdict(a, context).await,
            Self::Url(a) => url::url(a, context).await,
            Self::Traffic(a) => traffic::traffic(a, context).await,
            Self::Doctor(a) => doctor::doctor(a, context).await,
            Self::IngressController(a) => ingress_controller::ingress_controller(a).await,
            Self::Supervise(a) => supervise::supervise(a, context).await,
        }
    }
}

pub use supervise::KEEP;
pub use test::{Changes, Cut};
pub use up::Asked;

/// Where a system runs, what pods are and how they are kept apart, as commands that start them
/// take it.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    /// Where it runs: local, in devenv's own cluster (the default), kind, in a real one in
    /// Docker, or kube:CONTEXT, in a namespace of your own on a cluster that others use
    #[arg(long, value_name = "TARGET", value_parser = place)]
    target: Option<Place>,
    /// Who serves the Ingresses of a kind cluster [default: nginx]
    #[arg(long, value_name = "CONTROLLER")]
    ingress: Option<Ingress>,
    /// What pods of the local target are: processes of this machine (the default), or
    /// containers of its Docker Engine
    #[arg(long, value_name = "RUNTIME", env = "DEVENV_RUNTIME")]
    runtime: Option<Runs>,
    /// How pods are kept apart: in namespaces, as plain processes that get their port
    /// in PORT, or in namespaces where this machine allows them
    #[arg(
        long,
        value_name = "HOW",
        env = "DEVENV_ISOLATION",
        default_value = "auto"
    )]
    isolation: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    Auto,
    Sandbox,
    Ports,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runs {
    Process,
    Docker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ingress {
    /// ingress-nginx, as the manifests are written for it
    Nginx,
    /// devenv's own data plane
    Devenv,
}

/// A target, with the context of a cluster that others use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    kind: TargetKind,
    context: Option<String>,
}

fn place(text: &str) -> Result<Place, String> {
    let context = text.strip_prefix("kube:");
    if let Some(context) = context.filter(|context| !context.is_empty()) {
        return Ok(Place {
            kind: TargetKind::Kube,
            context: Some(context.to_owned()),
        });
    }
    match target(context.map_or(text, |_| "kube"))? {
        TargetKind::Kube => Err(
            "kube needs a context of your kubeconfig, kube:CONTEXT; kubectl config get-contexts \
             lists them"
                .to_owned(),
        ),
        kind => Ok(Place {
            kind,
            context: None,
        }),
    }
}

const TARGETS: &str = "expected local, kind or kube:CONTEXT";

/// A target, whichever its context.
fn target(text: &str) -> Result<TargetKind, String> {
    match text {
        "local" => Ok(TargetKind::Local),
        "kind" => Ok(TargetKind::Kind),
        "kube" => Ok(TargetKind::Kube),
        _ => Err(TARGETS.to_owned()),
    }
}

impl PodArgs {
    /// Where it runs.
    pub fn target(&self) -> TargetKind {
        self.target.as_ref().map(|t| t.kind).unwrap_or_default()
    }

    /// The context of a cluster that others use.
    pub fn context(&self) -> Option<String> {
        self.target.as_ref()?.context.clone()
    }

    /// Who serves the Ingresses of a kind cluster.
    pub fn ingress(&self) -> IngressController {
        self.asked_ingress().unwrap_or_default()
    }

    fn asked_ingress(&self) -> Option<IngressController> {
        self.ingress.map(|ingress| match ingress {
            Ingress::Nginx => IngressController::Nginx,
            Ingress::Devenv => IngressController::Devenv,
        })
    }

    /// What they are.
    pub fn runtime(&self) -> Runtime {
        match self.target() {
            TargetKind::Kind | TargetKind::Kube => Runtime::Docker,
            TargetKind::Local => self.asked_runtime().unwrap_or_default(),
        }
    }

    /// What of a system that is up is not as somebody asked for it, in words; nothing where
    /// nobody said.
    pub fn not_as(&self, up: &Endpoints) -> Option<String> {
        if let Some(asked) = &self.target {
            if asked.kind != up.target {
                return Some(format!("runs on the {} target", up.target));
            }
            if asked.context != up.context {
                let context = up.context.as_deref().unwrap_or_default();
                return Some(format!("runs on the cluster of the context {context:?}"));
            }
        }
        let controller = up.ingress_controller;
        if self
            .asked_ingress()
            .is_some_and(|asked| controller.is_some_and(|c| c != asked))
        {
            let controller = controller.unwrap_or_default();
            return Some(format!("has {controller} as its ingress controller"));
        }
        let runtime = self
            .asked_runtime()
            .filter(|_| up.target == TargetKind::Local);
        runtime
            .is_some_and(|asked| asked != up.runtime)
            .then(|| format!("has pods of the {} runtime", up.runtime))
    }

    /// What they are, where somebody said so.
    fn asked_runtime(&self) -> Option<Runtime> {
        self.runtime.map(|runtime| match runtime {
            Runs::Process => Runtime::Process,
            Runs::Docker => Runtime::Docker,
        })
    }

    /// How they are kept apart.
    pub fn isolation(&self) -> Isolation {
        match self.isolation {
            How::Auto => Isolation::Auto,
            How::Sandbox => Isolation::Sandbox,
            How::Ports => Isolation::Ports,
        }
    }

    /// The same as arguments of another process of this program.
    pub fn arguments(&self) -> [String; 8] {
        let isolation = match self.isolation {
            How::Auto => "auto",
            How::Sandbox => "sandbox",
            How::Ports => "ports",
        };
        [
            "--isolation".to_owned(),
            isolation.to_owned(),
            "--runtime".to_owned(),
            self.runtime().to_string(),
            "--target".to_owned(),
            match self.context() {
                Some(context) => format!("kube:{context}"),
                None => self.target().to_string(),
            },
            "--ingress".to_owned(),
            self.ingress().to_string(),
        ]
    }
}

/// The name of a run's folder.
pub fn run_id(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !text.is_empty() && text.len() <= 32 && text.chars().all(legal) {
        return Ok(text.to_owned());
    }
    Err("expected the id that `devenv test e2e --keep` prints".to_owned())
}

/// A namespace as Kubernetes takes it: an RFC 1123 label.
pub fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err(
        "Kubernetes takes at most 63 of the characters a-z, 0-9 and -, with a letter or digit at \
         both ends (RFC 1123)"
            .to_owned(),
    )
}

/// A duration of a second or more.
fn some_time(text: &str) -> Result<std::time::Duration, String> {
    match duration(text)? {
        d if d.is_zero() => Err("expected a second or more".to_owned()),
        d => Ok(d),
    }
}

/// Reads `90`, `90s`, `5m`, `1h30m` as seconds or more.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wanted = "a duration such as 90s, 5m or 1h30m";
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(std::time::Duration::from_secs(seconds));
    }
    let mut total = 0u64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(format!("expected {wanted}")),
        };
        let n: u64 = digits.parse().map_err(|_| format!("expected {wanted}"))?;
        total = total
            .checked_add(n.checked_mul(unit).ok_or_else(|| "too long".to_owned())?)
            .ok_or_else(|| "too long".to_owned())?;
        digits.clear();
    }
    if digits.is_empty() && !text.is_empty() {
        Ok(std::time::Duration::from_secs(total))
    } else {
        Err(format!("expected {wanted}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, namespace, some_time};
    use rstest::rstest;

    #[rstest]
    #[case("90", Some(90))]
    #[case("90s", Some(90))]
    #[case("5m", Some(300))]
    #[case("1h30m", Some(5400))]
    #[case("", None)]
    #[case("5x", None)]
    #[case("m", None)]
    #[case("1m30", None)]
    #[case("99999999999999999999h", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(duration(text).ok().map(|d| d.as_secs()), seconds);
    }

    #[test]
    fn some_time_is_more_than_none() {
        assert!(some_time("0s").is_err());
        assert_eq!(some_time("1s").unwrap().as_secs(), 1);
    }

    #[rstest]
    #[case("so1-fase2", true)]
    #[case("a", true)]
    #[case("so1_fase2", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("", false)]
    #[case("A", false)]
    fn namespaces(#[case] text: &str, #[case] legal: bool) {
        assert_eq!(namespace(text).is_ok(), legal);
    }
}
