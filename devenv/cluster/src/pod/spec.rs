//! How one container is started: its object, its image and its pod brought together.

use std::path::PathBuf;

use devenv_sandbox::{Access, Bind};
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::unistd::{Gid, Uid, User};

use super::configs::Configs;
use super::env::{Facts, command_line, environment};
use super::limits;
use super::runtime::{Security, StartSpec};
use super::volumes::{HostPolicy, Source, mounts};
use crate::image::{ContainerImage, Image, RunSpec};

/// `PATH` where this process has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every container of this machine shares.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `PATH` of containers whose image sets none: this machine's, since its programs run.
    pub path: String,
    /// Who containers run as when the manifest does not say.
    pub owner: (u32, u32),
    /// Host folders that no container sees unless it binds them on purpose: devenv's state, with
    /// the kubeconfig and the passwords of all.
    pub hidden: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_machine(owner: (u32, u32), hidden: Vec<PathBuf>) -> Surroundings {
        let path = std::env::var("PATH").ok().filter(|p| !p.is_empty());
        Surroundings {
            path: path.unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            owner,
            hidden,
        }
    }
}

/// Why a container cannot be started: both become its waiting state, and it starts when mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// `CreateContainerConfigError` and the like.
    pub reason: &'static str,
    /// What is missing, for people.
    pub message: String,
}

impl ConfigError {
    fn new(message: String) -> ConfigError {
        ConfigError {
            reason: "CreateContainerConfigError",
            message,
        }
    }
}

/// Everything that is needed to start `container`. Its runtime changes its variables by `prepare`.
///
/// # Errors
/// What is missing or not supported.
#[expect(
    clippy::too_many_arguments,
    reason = "what a container is made of comes from that many places"
)]
pub(crate) fn start_spec(
    pod: &Pod,
    container: &Container,
    image: &Image,
    configs: &dyn Configs,
    facts: &Facts,
    policy: &HostPolicy,
    around: &Surroundings,
    prepare: impl FnOnce(&mut Vec<(String, String)>),
) -> Result<StartSpec, ConfigError> {
    let mut own = environment(pod, container, configs, facts).map_err(|e| ConfigError::new(e.0))?;
    prepare(&mut own);
    let run = &image.run;
    let (run_as, user) = match &run.container {
        Some(image) => (None, user_in_image(pod, container, image)?),
        None => (run_as(pod, container, around)?, None),
    };
    let source = Source {
        pod,
        configs,
        facts,
        policy,
        user: user_of_volumes(pod, container, run, around)?,
    };
    let mounted = mounts(&source, container, &own).map_err(|e| ConfigError::new(e.0))?;
    let argv = command_line(container, image, &own);
    if argv.is_empty() {
        return Err(ConfigError::new(format!(
            "container {:?}: neither its command nor image {:?} says which program to run",
            container.name,
            container.image.as_deref().unwrap_or_default()
        )));
    }
    let mut binds = match &run.container {
        Some(_) => Vec::new(),
        None => image_binds(run),
    };
    binds.extend(mounted);
    binds.retain(|bind| bind.source.as_os_str() != "/" && !bind.source.as_os_str().is_empty());
    let cwd = container
        .working_dir
        .as_ref()
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
        .or_else(|| run.workdir.clone())
        .unwrap_or_else(|| run.cwd.clone());
    let cwd = if cwd.as_os_str().is_empty() {
        PathBuf::from("/")
    } else {
        cwd
    };
    Ok(StartSpec {
        name: container.name.clone(),
        argv,
        env: match &run.container {
            Some(_) => over(vec![host_name(pod)], image, own),
            None => whole_environment(pod, image, own, run_as.unwrap_or(around.owner).0, around),
        },
        cwd,
        binds,
        run_as,
        hidden: around.hidden.clone(),
        limits: limits::of_container(container),
        image: run.container.clone(),
        user,
        security: security(container),
    })
}

/// What the container may not do, or may.
fn security(container: &Container) -> Security {
    let context = container.security_context.clone().unwrap_or_default();
    let capabilities = context.capabilities.unwrap_or_default();
    Security {
        read_only_root: context.read_only_root_filesystem.unwrap_or(false),
        privileged: context.privileged.unwrap_or(false),
        no_new_privileges: context.allow_privilege_escalation == Some(false),
        add: capabilities.add.unwrap_or_default(),
        drop: capabilities.drop.unwrap_or_default(),
    }
}

/// The user of a container of a container engine, where the manifest says one.
///
/// # Errors
/// An id that is none, or root where that is ruled out, or may be.
fn user_in_image(
    pod: &Pod,
    container: &Container,
    image: &ContainerImage,
) -> Result<Option<String>, ConfigError> {
    let said = Said::of(pod, container)?;
    let own = image.user.as_deref().unwrap_or_default();
    let user = match (said.user, said.group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => {
            let user = own.split(':').next().filter(|user| !user.is_empty());
            Some(format!("{}:{group}", user.unwrap_or("0")))
        }
        (None, None) => None,
    };
    if said.non_root {
        let user = user.as_deref().unwrap_or(own);
        let name = user.split(':').next().unwrap_or_default();
        // As kubelet: what a name stands for is not known before it runs.
        let wrong = match name.parse::<u32>() {
            Ok(0) => Some("would run as root: set runAsUser".to_owned()),
            Ok(_) => None,
            Err(_) if name.is_empty() => {
                Some("its image has no USER, so it would run as root: set runAsUser".to_owned())
            }
            Err(_) => Some(format!(
                "its image's USER {name:?} is no number, so that it can't be told from root: set runAsUser"
            )),
        };
        if let Some(wrong) = wrong {
            return Err(ConfigError::new(format!(
                "container {:?} has runAsNonRoot and {wrong}",
                container.name
            )));
        }
    }
    Ok(user)
}

/// What the image shows of the host: its binds, and its working directory in both places.
fn image_binds(run: &RunSpec) -> Vec<Bind> {
    let mut binds = run.binds.clone();
    let shown = binds
        .iter()
        .rev()
        .find(|bind| run.cwd.starts_with(&bind.source) && bind.source == bind.target);
    let access = shown.map(|bind| bind.access);
    let cwd = |target: &PathBuf| Bind {
        source: run.cwd.clone(),
        target: target.clone(),
        access: access.unwrap_or(Access::ReadWrite),
    };
    if access.is_none() {
        binds.insert(0, cwd(&run.cwd));
    }
    if let Some(workdir) = run.workdir.as_ref().filter(|w| **w != run.cwd) {
        binds.push(cwd(workdir));
    }
    binds
}

/// The machine's defaults, the image's variables over them, the container's over those.
fn whole_environment(
    pod: &Pod,
    image: &Image,
    own: Vec<(String, String)>,
    uid: u32,
    around: &Surroundings,
) -> Vec<(String, String)> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let home = user.map_or_else(|| "/".to_owned(), |u| u.dir.display().to_string());
    let machine = vec![
        ("PATH".into(), around.path.clone()),
        host_name(pod),
        ("HOME".into(), home),
    ];
    over(machine, image, own)
}

fn host_name(pod: &Pod) -> (String, String) {
    let host = pod.metadata.name.clone().unwrap_or_default();
    ("HOSTNAME".into(), host)
}

/// The image's variables over `all`, the container's own over those.
fn over(
    mut all: Vec<(String, String)>,
    image: &Image,
    own: Vec<(String, String)>,
) -> Vec<(String, String)> {
    for (name, value) in image.run.env.iter().cloned().chain(own) {
        match all.iter_mut().find(|(n, _)| *n == name) {
            Some(known) => known.1 = value,
            None => all.push((name, value)),
        }
    }
    all
}

/// Whom the files of a container's volumes belong to: the user that it runs as, as far as
/// that is known by number.
///
/// # Errors
/// As [`run_as`] and [`user_in_image`].
pub(crate) fn user_of_volumes(
    pod: &Pod,
    container: &Container,
    run: &RunSpec,
    around: &Surroundings,
) -> Result<(u32, u32), ConfigError> {
    let Some(image) = &run.container else {
        return Ok(run_as(pod, container, around)?.unwrap_or(around.owner));
    };
    let said = user_in_image(pod, container, image)?;
    let said = said.as_deref().or(image.user.as_deref()).unwrap_or("0");
    let (user, group) = said.split_once(':').unwrap_or((said, "0"));
    // A name is known in the image alone; what it can't read it is told by its own error.
    let number = |text: &str| text.parse::<u32>().ok();
    Ok(number(user).map_or(around.owner, |user| (user, number(group).unwrap_or(0))))
}

/// What a container's securityContext, or else its pod's, says of its user.
struct Said {
    user: Option<u32>,
    group: Option<u32>,
    non_root: bool,
}

impl Said {
    fn of(pod: &Pod, container: &Container) -> Result<Said, ConfigError> {
        let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let own = container.security_context.as_ref();
        let id = |what: &str, own: Option<i64>, pods: Option<i64>| {
            let number = |value: i64| {
                u32::try_from(value)
                    .map_err(|_| ConfigError::new(format!("{what} {value} is not a valid id")))
            };
            own.or(pods).map(number).transpose()
        };
        let user = id(
            "runAsUser",
            own.and_then(|c| c.run_as_user),
            of_pod.and_then(|c| c.run_as_user),
        )?;
        let group = id(
            "runAsGroup",
            own.and_then(|c| c.run_as_group),
            of_pod.and_then(|c| c.run_as_group),
        )?;
        let non_root = own
            .and_then(|c| c.run_as_non_root)
            .or_else(|| of_pod.and_then(|c| c.run_as_non_root));
        Ok(Said {
            user,
            group,
            non_root: non_root.unwrap_or(false),
        })
    }
}

/// User and group of a container; `None` for the owner of the checkout.
///
/// # Errors
/// An id that is none, or root where that is ruled out.
pub(crate) fn run_as(
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
) -> Result<Option<(u32, u32)>, ConfigError> {
    let Said {
        user,
        group,
        non_root,
    } = Said::of(pod, container)?;
    let ids = match (user, group) {
        (None, None) => None,
        (user, group) => {
            let uid = user.unwrap_or(around.owner.0);
            let own_group = || {
                let known = User::from_uid(Uid::from_raw(uid))
                    .ok()
                    .flatten()
                    .map(|u| u.gid);
                known
                    .unwrap_or_else(|| {
                        if user.is_some() {
                            Gid::from_raw(0)
                        } else {
                            Gid::from_raw(around.owner.1)
                        }
                    })
                    .as_raw()
            };
            Some((uid, group.unwrap_or_else(own_group)))
        }
    };
    if non_root && ids.unwrap_or(around.owner).0 == 0 {
        return Err(ConfigError::new(format!(
            "container {:?} has runAsNonRoot and would run as root: set runAsUser",
            container.name
        )));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::image::RunSpec;
    use crate::pod::configs::tests::Fixed;

    fn make(container: Value, owner: (u32, u32)) -> Result<StartSpec, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "ns"},
            "spec": {"containers": [], "securityContext": {"runAsUser": 1234}},
        }))
        .expect("a pod");
        let mut value = json!({"name": "c", "image": "web"});
        for (key, field) in container.as_object().into_iter().flatten() {
            value[key] = field.clone();
        }
        let container: Container = serde_json::from_value(value).expect("a container");
        let run = RunSpec {
            argv: vec!["serve".into()],
            cwd: "/src/web".into(),
            workdir: Some("/app".into()),
            env: vec![
                ("MODE".into(), "image".into()),
                ("PATH".into(), "/opt/bin".into()),
            ],
            binds: vec![Bind {
                source: "/a".into(),
                target: "/b".into(),
                access: Access::ReadOnly,
            }],
            container: None,
        };
        let image = Image {
            run: Arc::new(run),
            entrypoint: 0,
        };
        let policy = HostPolicy {
            volumes_dir: "/nowhere".into(),
            allowed: vec![],
            owner,
        };
        let around = Surroundings {
            path: "/bin".into(),
            owner,
            hidden: vec!["/src/web/.state".into()],
        };
        start_spec(
            &pod,
            &container,
            &image,
            &Fixed::default(),
            &Facts::default(),
            &policy,
            &around,
            |_| {},
        )
    }

    #[test]
    fn image_and_container_come_together() {
        let env = json!({"env": [{"name": "MODE", "value": "mine"}, {"name": "X", "value": "y"}]});
        let spec = make(env, (0, 0)).expect("complete");
        assert_eq!(spec.argv, ["serve"]);
        assert_eq!(spec.cwd, PathBuf::from("/app"));
        let get = |name: &str| {
            spec.env
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (get("PATH"), get("MODE"), get("X"), get("HOSTNAME")),
            (vec!["/opt/bin"], vec!["mine"], vec!["y"], vec!["web-1"])
        );
        let binds: Vec<_> = spec
            .binds
            .iter()
            .map(|b| (b.target.display().to_string(), b.access))
            .collect();
        assert_eq!(
            binds,
            [
                ("/src/web".into(), Access::ReadWrite),
                ("/b".into(), Access::ReadOnly),
                ("/app".into(), Access::ReadWrite),
            ]
        );
        assert_eq!(spec.run_as, Some((1234, 0)));
        assert_eq!(spec.hidden, [PathBuf::from("/src/web/.state")]);
    }

    #[test]
    fn a_working_directory_is_shown_as_what_is_around_it() {
        let bind = |path: &str, access| Bind {
            source: path.into(),
            target: path.into(),
            access,
        };
        let run = RunSpec {
            cwd: "/src/web".into(),
            workdir: Some("/app".into()),
            binds: vec![
                bind("/src", Access::Overlay),
                bind("/src/.state/venvs", Access::ReadOnly),
            ],
            ..RunSpec::default()
        };
        let mut expected = run.binds.clone();
        expected.push(Bind {
            source: "/src/web".into(),
            target: "/app".into(),
            access: Access::Overlay,
        });
        assert_eq!(image_binds(&run), expected);
    }

    #[rstest]
    #[case(json!({"workingDir": "/x", "securityContext": {"runAsUser": 5, "runAsGroup": 6}}), "/x", (5, 6))]
    fn the_container_wins(#[case] container: Value, #[case] cwd: &str, #[case] ids: (u32, u32)) {
        let spec = make(container, (0, 0)).expect("complete");
        assert_eq!((spec.cwd, spec.run_as), (PathBuf::from(cwd), Some(ids)));
    }

    #[test]
    fn non_root_is_taken_at_its_word() {
        let error = make(
            json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}),
            (0, 0),
        )
        .expect_err("refused");
        assert!(error.message.contains("runAsNonRoot"), "{error}");
    }
}
