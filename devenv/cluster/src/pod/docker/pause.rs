//! The pause container: this program, shown with this machine's libraries in an image
//! that is otherwise empty.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::CreateImageOptionsBuilder;
use devenv_sandbox::{Door, PAUSE};
use futures_util::TryStreamExt;

use super::{Shared, failed, is_gone};
use crate::pod::runtime::{RuntimeError, SandboxSpec};

/// The name of the empty image.
pub(super) const IMAGE: &str = "devenv/pause:1";
/// Where its container is shown the pod's folder,
const FOLDER: &str = "/devenv";
/// and in it this program.
const PROGRAM: &str = "/devenv-program";
/// What a program of this machine needs to run.
const LIBRARIES: &[&str] = &["/usr", "/lib", "/lib64", "/nix/store"];
/// The name of the container in its labels, as dockershim had it.
pub(super) const NAME: &str = "POD";

/// This program, in a place of its own: cargo may put another where it was started from,
/// and pods made later would have none.
pub(super) fn program(dir: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let kept = dir.join("devenv");
    match fs::remove_file(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let own = std::env::current_exe()?;
    if fs::hard_link(&own, &kept).is_err() {
        fs::copy("/proc/self/exe", &kept)?;
    }
    Ok(kept)
}

/// Makes the image, where the engine has none.
pub(super) async fn ensure_image(docker: &Docker) -> Result<(), RuntimeError> {
    match docker.inspect_image(IMAGE).await {
        Ok(_) => return Ok(()),
        Err(error) if is_gone(&error) => {}
        Err(error) => return Err(failed(format!("look for the image {IMAGE}"))(error)),
    }
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(IMAGE.split(':').next().unwrap_or(IMAGE))
        .tag(IMAGE.rsplit(':').next().unwrap_or_default())
        .build();
    let body = bollard::body_full(empty_root().into());
    let steps = docker.create_image(Some(options), Some(body), None);
    let made = steps.try_collect::<Vec<_>>().await;
    made.map(drop)
        .map_err(failed(format!("make the image {IMAGE}")))
}

/// A tar archive of mount points: of POSIX's format, 512 bytes each, and its end.
fn empty_root() -> Vec<u8> {
    let mut archive = Vec::new();
    for name in [
        "dev/",
        "etc/",
        "lib/",
        "lib64/",
        "nix/store/",
        "proc/",
        "sys/",
        "usr/",
    ] {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, b"00000000000\0");
        put(136, b"00000000000\0");
        // The sum counts its own field as blanks.
        put(148, b"        ");
        put(156, b"5");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

/// The pause container of a pod, whose folder is `folder`.
pub(super) fn body(shared: &Shared, pod: &SandboxSpec, folder: &Path) -> ContainerCreateBody {
    let shown = |source: &Path, target: &str| Mount {
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    };
    let libraries = LIBRARIES.iter().filter(|path| Path::new(path).is_dir());
    let mut mounts: Vec<Mount> = libraries.map(|path| shown(Path::new(path), path)).collect();
    mounts.push(shown(folder, FOLDER));
    mounts.push(shown(&shared.program, PROGRAM));
    ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        hostname: Some(pod.hostname.clone()),
        entrypoint: Some(vec![
            PROGRAM.to_owned(),
            PAUSE.to_owned(),
            format!("{FOLDER}/{}", Door::file_name()),
        ]),
        labels: Some(shared.labels(pod, NAME)),
        user: Some("0:0".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            ipc_mode: Some("shareable".to_owned()),
            mounts: Some(mounts),
            cap_drop: Some(vec!["ALL".to_owned()]),
            // To make its link; to reach the socket in somebody's private folder.
            cap_add: Some(vec!["NET_ADMIN".to_owned(), "DAC_OVERRIDE".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            sysctls: Some(
                [
                    // As in Kubernetes with containerd's settings.
                    ("net.ipv4.ip_unprivileged_port_start", "0"),
                    // A bridge may still lead to a pod that had the address before.
                    ("net.ipv4.conf.default.arp_notify", "1"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.tar");
        fs::write(&file, empty_root()).expect("written");
        let listed = std::process::Command::new("tar")
            .arg("-tf")
            .arg(&file)
            .output()
            .expect("tar runs");
        assert!(listed.status.success(), "{listed:?}");
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(names.lines().any(|name| name == "lib64/"), "{names}");
    }
}
