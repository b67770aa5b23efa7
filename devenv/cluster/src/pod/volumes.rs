//! A container's volume mounts: host paths that are bound into it.
//!
//! What objects say ([`payload`]) becomes files in the pod's folder, under the
//! project's private state as the objects themselves are, and is kept up to date
//! while the container runs ([`refresh`]). Source: kubelet's `volume` packages.

mod atomic;
mod payload;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devenv_sandbox::{Access, Bind, Tmpfs};
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, Volume, VolumeMount};

use super::configs::Configs;
use super::env::{Facts, expand};
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

/// Where volumes may live on the host.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    /// Folder of this pod's volumes; made when needed, removed with the pod.
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

/// Whose volumes they are, and where what is in them comes from.
pub struct Source<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The ConfigMaps and Secrets of its namespace.
    pub configs: &'a dyn Configs,
    /// What `fieldRef` may ask for.
    pub facts: &'a Facts,
    /// Where volumes may live.
    pub policy: &'a HostPolicy,
    /// User and group of the container: the files of its objects are theirs.
    pub user: (u32, u32),
}

/// The mounts of one container, in the order in which they are to be made. Makes directories for
/// emptyDir and `DirectoryOrCreate`, and the files that objects hold; `env` is for `subPathExpr`.
///
/// # Errors
/// An object or key that is missing, a kind of volume that is not supported, a forbidden hostPath,
/// or a directory that cannot be made.
pub fn mounts(
    source: &Source<'_>,
    container: &Container,
    env: &[(String, String)],
) -> Result<Vec<Bind>, VolumeError> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = source.volume(&mount.name).ok_or_else(|| {
            VolumeError(format!(
                "volumeMount {:?}: the pod has no volume of that name",
                mount.name
            ))
        })?;
        binds.push(source.bind(container, volume, mount, env)?);
    }
    // One in another comes after it, as container runtimes have it.
    binds.sort_by_key(|bind| bind.target.components().count());
    Ok(binds)
}

/// Volumes that stay as they are from now on, by container and volume.
pub type Fixed = BTreeSet<(String, String)>;

/// Brings the files of a running container's objects up to date, except in volumes whose objects are
/// immutable: those are noted in `fixed` and never looked at again. Returns what could not be
/// brought up to date and why; that stays as it is.
pub fn refresh(
    source: &Source<'_>,
    container: &Container,
    fixed: &mut Fixed,
) -> Vec<(String, VolumeError)> {
    let mut failed = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let key = (container.name.clone(), mount.name.clone());
        let Some(volume) = source.volume(&mount.name).filter(|_| !fixed.contains(&key)) else {
            continue;
        };
        match source.payload(container, volume) {
            Ok(Some((_, true))) => drop(fixed.insert(key)),
            Ok(_) => {}
            Err(error) => failed.push((volume.name.clone(), error)),
        }
    }
    failed
}

/// What a container's volumes were asked to hold and can't, in sentences.
pub fn absent(pod: &Pod, container: &Container) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mounted = |volume: &&Volume| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|m| m.name == volume.name)
    };
    volumes.filter(mounted).flat_map(payload::absent).collect()
}

impl Source<'_> {
    fn volume(&self, name: &str) -> Option<&Volume> {
        let mut volumes = self
            .pod
            .spec
            .iter()
            .flat_map(|s| s.volumes.iter().flatten());
        volumes.find(|v| v.name == name)
    }

    /// Writes what the objects of a volume say; `None` for a volume that is not made of objects.
    /// Returns its directory and whether the objects are immutable.
    fn payload(
        &self,
        container: &Container,
        volume: &Volume,
    ) -> Result<Option<(PathBuf, bool)>, VolumeError> {
        let Some(payload) = payload::of(self.pod, volume, self.configs, self.facts)? else {
            return Ok(None);
        };
        // Each container has its own, since the files belong to its user.
        let dir = self
            .policy
            .volumes_dir
            .join(format!("{}~{}", volume.name, container.name));
        let owner = rustix::process::geteuid().is_root().then_some(self.user);
        atomic::write(&dir, &payload.files, owner).map_err(|error| {
            VolumeError(format!(
                "cannot write the files of volume {:?}: {error}",
                volume.name
            ))
        })?;
        Ok(Some((dir, payload.immutable)))
    }

    fn bind(
        &self,
        container: &Container,
        volume: &Volume,
        mount: &VolumeMount,
        env: &[(String, String)],
    ) -> Result<Bind, VolumeError> {
        let target = PathBuf::from(&mount.mount_path);
        let sub_path = sub_path(volume, mount, env)?;
        if let Some((dir, _)) = self.payload(container, volume)? {
            let source = match sub_path {
                None => dir,
                // The file itself: what the objects say later is not seen there, as in Kubernetes.
                Some(sub) => {
                    let path = dir.join(atomic::DATA).join(&sub);
                    path.canonicalize().map_err(|_| {
                        VolumeError(format!(
                            "subPath {sub:?} is not among the files of volume {:?}",
                            volume.name
                        ))
                    })?
                }
            };
            return Ok(Bind {
                source,
                target,
                access: Access::ReadOnly,
            });
        }
        let policy = self.policy;
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
        let access = if mount.read_only.unwrap_or(false) {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        Ok(Bind {
            source,
            target,
            access,
        })
    }
}

fn sub_path(
    volume: &Volume,
    mount: &VolumeMount,
    env: &[(String, String)],
) -> Result<Option<String>, VolumeError> {
    let path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) => {
            let find = |name: &str| {
                env.iter()
                    .rev()
                    .find(|(k, _)| k == name)
                    .map(|(_, v)| v.clone())
            };
            expand(expression, &find)
        }
        _ => return Ok(None),
    };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(VolumeError(format!(
            "subPath {path:?} of volume {:?} must be relative, without `..`",
            volume.name
        )));
    }
    Ok(Some(path))
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
            let size = source.size_limit.as_ref();
            let size = size.and_then(|limit| limits::bytes(&limit.0));
            Ok(Tmpfs { path, size })
        })
        .collect()
}

/// Why a pod's disk can't be filled: a volume that it writes to lies on the machine's own.
pub fn on_disk(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mounts = containers.flat_map(|c| c.volume_mounts.iter().flatten());
    let mut written = mounts.filter(|mount| !mount.read_only.unwrap_or(false));
    written.find_map(|mount| {
        let mut volumes = spec.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name)?;
        let mend = match (&volume.empty_dir, &volume.host_path) {
            (Some(source), _) if source.medium.as_deref() == Some("Memory") => return None,
            (Some(_), _) => "give its emptyDir medium: Memory",
            (_, Some(_)) => "mount it with readOnly: true",
            // Made of objects, and never written to.
            _ => return None,
        };
        Some(format!(
            "volume {:?} lies on this machine's own disk, which is never filled: {mend}",
            volume.name
        ))
    })
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
