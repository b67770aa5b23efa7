//! A container's volume mounts: files that are put into it and host paths that are bound.
//!
//! ConfigMaps and Secrets become files in the pod's private memory file system,
//! so a Secret never touches the disk. They hold what the objects said when the
//! container started. Source: kubelet's `volume` packages.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devenv_sandbox::{Access, Bind, Tmpfs};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeMount,
};

use super::configs::{Configs, Data};
use super::env::{Facts, expand, field};
use super::limits;

/// A file that is made in the container.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Path in the container.
    pub path: PathBuf,
    /// What it holds.
    pub contents: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for File {
    /// Without the contents: they may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({} bytes, {:o})",
            self.path.display(),
            self.contents.len(),
            self.mode
        )
    }
}

/// What a container's mounts come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Files to make.
    pub files: Vec<File>,
    /// Host paths to bind.
    pub binds: Vec<Bind>,
}

/// Where volumes may live on the host.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    /// Folder of this pod's emptyDirs; made when needed, removed with the pod.
    pub volumes_dir: PathBuf,
    /// hostPath volumes must lie in one of these.
    pub allowed: Vec<PathBuf>,
    /// Who owns what is made on the host.
    pub owner: (u32, u32),
}

/// Why a mount cannot be made; becomes the waiting message of the container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VolumeError(pub String);

/// Resolves the mounts of one container. Makes directories for emptyDir and `DirectoryOrCreate`.
///
/// # Errors
/// An object or key that is missing, a kind of volume that is not supported, a forbidden hostPath,
/// or a directory that cannot be made.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    configs: &dyn Configs,
    facts: &Facts,
    policy: &HostPolicy,
    env: &[(String, String)],
) -> Result<Mounts, VolumeError> {
    let volumes: BTreeMap<&str, &Volume> = pod
        .spec
        .iter()
        .flat_map(|s| s.volumes.iter().flatten())
        .map(|v| (v.name.as_str(), v))
        .collect();
    let mut out = Mounts::default();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(mount.name.as_str()).ok_or_else(|| {
            VolumeError(format!(
                "volumeMount {:?}: the pod has no volume of that name",
                mount.name
            ))
        })?;
        add(pod, volume, mount, configs, facts, policy, env, &mut out)?;
    }
    Ok(out)
}

/// The emptyDirs of medium Memory, whose places are made. Without a `sizeLimit` one may hold half of
/// the machine's memory, or what the containers' limits leave it.
///
/// # Errors
/// A directory that cannot be made.
pub fn memory_volumes(pod: &Pod, policy: &HostPolicy) -> Result<Vec<Tmpfs>, VolumeError> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let in_memory = volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        (source.medium.as_deref() == Some("Memory")).then_some((volume, source))
    });
    in_memory
        .map(|(volume, source)| {
            let path = policy.volumes_dir.join(&volume.name);
            make_dir(&path, 0o777, policy.owner)?;
            let size = source.size_limit.as_ref().and_then(limits::bytes);
            Ok(Tmpfs { path, size })
        })
        .collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "private; the inputs of `mounts` passed on"
)]
fn add(
    pod: &Pod,
    volume: &Volume,
    mount: &VolumeMount,
    configs: &dyn Configs,
    facts: &Facts,
    policy: &HostPolicy,
    env: &[(String, String)],
    out: &mut Mounts,
) -> Result<(), VolumeError> {
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) => {
            let find = |name: &str| {
                env.iter()
                    .rev()
                    .find(|(k, _)| k == name)
                    .map(|(_, v)| v.clone())
            };
            Some(expand(expression, &find))
        }
        _ => None,
    };
    if let Some(path) = &sub_path
        && (path.starts_with('/') || path.split('/').any(|part| part == ".."))
    {
        return Err(VolumeError(format!(
            "subPath {path:?} of volume {:?} must be relative, without `..`",
            volume.name
        )));
    }
    let target = PathBuf::from(&mount.mount_path);
    let access = if mount.read_only.unwrap_or(false) {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    if let Some(files) = files_of(pod, volume, configs, facts)? {
        return place(volume, files, sub_path.as_deref(), &target, policy, out);
    }
    let mut source = if volume.empty_dir.is_some() {
        let path = policy.volumes_dir.join(&volume.name);
        make_dir(&path, 0o777, policy.owner)?;
        path
    } else if let Some(host) = &volume.host_path {
        host_path(&volume.name, host, policy)?
    } else {
        return Err(VolumeError(format!(
            "volume {:?} is of a kind that is not supported here: use configMap, secret, emptyDir, downwardAPI, projected, or a hostPath inside the project",
            volume.name
        )));
    };
    if let Some(path) = sub_path {
        source.push(path);
        if !source.exists() {
            make_dir(&source, 0o777, policy.owner)?;
        }
    }
    out.binds.push(Bind {
        source,
        target,
        access,
    });
    Ok(())
}

/// The files of a volume that is made of objects; `None` for volumes that live on the host.
fn files_of(
    pod: &Pod,
    volume: &Volume,
    configs: &dyn Configs,
    facts: &Facts,
) -> Result<Option<Vec<File>>, VolumeError> {
    let ns = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode;
        let data = require(
            "configmap",
            ns,
            &source.name,
            source.optional,
            configs.config_map(&source.name),
        )?;
        return select(
            &source.name,
            data,
            source.items.as_deref(),
            mode,
            source.optional,
        )
        .map(Some);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let data = require("secret", ns, name, source.optional, configs.secret(name))?;
        return select(
            name,
            data,
            source.items.as_deref(),
            source.default_mode,
            source.optional,
        )
        .map(Some);
    }
    if let Some(source) = &volume.downward_api {
        return downward(
            pod,
            source.items.as_deref().unwrap_or_default(),
            source.default_mode,
            facts,
        )
        .map(Some);
    }
    let Some(projected) = &volume.projected else {
        return Ok(None);
    };
    let mut files = Vec::new();
    for source in projected.sources.iter().flatten() {
        let mode = projected.default_mode;
        files.extend(if let Some(s) = &source.config_map {
            let data = require(
                "configmap",
                ns,
                &s.name,
                s.optional,
                configs.config_map(&s.name),
            )?;
            select(&s.name, data, s.items.as_deref(), mode, s.optional)?
        } else if let Some(s) = &source.secret {
            let data = require("secret", ns, &s.name, s.optional, configs.secret(&s.name))?;
            select(&s.name, data, s.items.as_deref(), mode, s.optional)?
        } else if let Some(s) = &source.downward_api {
            downward(pod, s.items.as_deref().unwrap_or_default(), mode, facts)?
        } else {
            return Err(VolumeError(format!(
                "projected volume {:?}: only configMap, secret and downwardAPI are supported here",
                volume.name
            )));
        });
    }
    Ok(Some(files))
}

fn require(
    what: &str,
    ns: &str,
    name: &str,
    optional: Option<bool>,
    data: Option<Data>,
) -> Result<Data, VolumeError> {
    match data {
        Some(data) => Ok(data),
        None if optional.unwrap_or(false) => Ok(Data::new()),
        None => Err(VolumeError(format!(
            "{what} {name:?} not found in namespace {ns:?}"
        ))),
    }
}

fn select(
    name: &str,
    mut data: Data,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Vec<File>, VolumeError> {
    let mode = mode_of(default_mode);
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(key, contents)| File {
                path: key.into(),
                contents,
                mode,
            })
            .collect());
    };
    let mut files = Vec::new();
    for item in items {
        match data.remove(&item.key) {
            Some(contents) => files.push(File {
                path: relative(&item.path)?,
                contents,
                mode: item.mode.map_or(mode, |m| mode_of(Some(m))),
            }),
            None if optional.unwrap_or(false) => {}
            None => {
                return Err(VolumeError(format!(
                    "references non-existent key {:?} of {name:?}",
                    item.key
                )));
            }
        }
    }
    Ok(files)
}

fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    facts: &Facts,
) -> Result<Vec<File>, VolumeError> {
    items
        .iter()
        .map(|item| {
            let selector = item.field_ref.as_ref().ok_or_else(|| {
                VolumeError(format!(
                    "downwardAPI file {:?}: only fieldRef is supported here",
                    item.path
                ))
            })?;
            let text = field(pod, selector, facts).map_err(|error| VolumeError(error.0))?;
            Ok(File {
                path: relative(&item.path)?,
                contents: text.into_bytes(),
                mode: mode_of(item.mode.or(mode)),
            })
        })
        .collect()
}

/// 0644 unless said otherwise, as in Kubernetes.
fn mode_of(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777
}

fn relative(path: &str) -> Result<PathBuf, VolumeError> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(VolumeError(format!(
            "path {path:?} of a volume's item must be relative, without `..`"
        )));
    }
    Ok(PathBuf::from(path))
}

fn place(
    volume: &Volume,
    files: Vec<File>,
    sub_path: Option<&str>,
    target: &Path,
    policy: &HostPolicy,
    out: &mut Mounts,
) -> Result<(), VolumeError> {
    if files.is_empty() && sub_path.is_none() {
        // An empty volume is still a directory.
        let source = policy.volumes_dir.join(&volume.name);
        make_dir(&source, 0o755, policy.owner)?;
        out.binds.push(Bind {
            source,
            target: target.to_owned(),
            access: Access::ReadOnly,
        });
        return Ok(());
    }
    let before = out.files.len();
    for file in files {
        let path = match sub_path {
            None => target.join(&file.path),
            Some(sub) => match file.path.strip_prefix(sub) {
                Ok(rest) if rest.as_os_str().is_empty() => target.to_owned(),
                Ok(rest) => target.join(rest),
                Err(_) => continue,
            },
        };
        out.files.push(File { path, ..file });
    }
    if let Some(sub) = sub_path
        && out.files.len() == before
    {
        return Err(VolumeError(format!(
            "subPath {sub:?} is not among the files of volume {:?}",
            volume.name
        )));
    }
    Ok(())
}

fn host_path(
    volume: &str,
    host: &HostPathVolumeSource,
    policy: &HostPolicy,
) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&host.path);
    let kind = host.type_.as_deref().unwrap_or_default();
    let refuse = || {
        let allowed: Vec<String> = policy
            .allowed
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        VolumeError(format!(
            "hostPath {} of volume {volume:?} is outside the project: it must lie in {}",
            path.display(),
            allowed.join(" or ")
        ))
    };
    // Where it is to be made, the nearest folder that exists decides: links are followed first.
    let existing = path.ancestors().find(|p| p.exists()).ok_or_else(refuse)?;
    let real = existing.canonicalize().map_err(|_| refuse())?;
    let rest = path.strip_prefix(existing).map_err(|_| refuse())?;
    let real = if rest.as_os_str().is_empty() {
        real
    } else {
        real.join(rest)
    };
    let inside = |allowed: &PathBuf| allowed.canonicalize().is_ok_and(|a| real.starts_with(a));
    if !path.is_absolute()
        || rest.components().any(|c| c.as_os_str() == "..")
        || !policy.allowed.iter().any(inside)
    {
        return Err(refuse());
    }
    let wrong = |expected: &str| {
        VolumeError(format!(
            "hostPath {} of volume {volume:?} is not {expected}",
            path.display()
        ))
    };
    match kind {
        "DirectoryOrCreate" if !real.exists() => make_dir(&real, 0o755, policy.owner)?,
        "Directory" | "DirectoryOrCreate" if !real.is_dir() => return Err(wrong("a directory")),
        "FileOrCreate" if !real.exists() => {
            std::fs::File::create(&real)
                .map_err(|e| VolumeError(format!("cannot make {}: {e}", real.display())))?;
        }
        "File" | "FileOrCreate" if !real.is_file() => return Err(wrong("a file")),
        _ if !real.exists() => {
            return Err(wrong("there: give it type DirectoryOrCreate or make it"));
        }
        _ => {}
    }
    Ok(real)
}

fn make_dir(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), VolumeError> {
    let failed = |error: std::io::Error| {
        VolumeError(format!(
            "cannot make the directory {}: {error}",
            path.display()
        ))
    };
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
