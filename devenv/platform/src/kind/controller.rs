//! devenv's own ingress controller in the cluster: this very program, with the libraries that
//! it is linked with, in an image of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bollard::Docker;
use devenv_ingress_controller::{ManifestOptions, manifest};
use serde_json::{Value, json};

use super::cluster::Node;
use super::error::KindError;
use super::load;
use super::oci::{Image, digest_of};

/// Where the program lies in the image.
const PROGRAM: &str = "/devenv";

/// Brings the controller's image into every node that lacks it, and returns the objects that
/// run it. `addresses` stand in the Ingresses' status.
///
/// # Errors
/// [`KindError::Load`].
pub async fn deliver(
    docker: &Docker,
    nodes: &[Node],
    addresses: Vec<IpAddr>,
) -> Result<Vec<Value>, KindError> {
    let image = name().map_err(|source| KindError::Io {
        what: "read",
        path: "/proc/self/exe".into(),
        source,
    })?;
    let failed = |node: &Node, reason: String| KindError::Load {
        image: image.clone(),
        node: node.name.clone(),
        reason,
    };
    let mut made = None;
    for node in nodes {
        let has = load::has(docker, node, &image).await;
        if has.map_err(|e| failed(node, e.to_string()))? {
            continue;
        }
        let (layers, content) = match made.take() {
            Some(made) => made,
            None => tokio::task::spawn_blocking(make)
                .await
                .map_err(io::Error::other)
                .and_then(|made| made)
                .map_err(|e| failed(node, e.to_string()))?,
        };
        let sent = load::import(docker, node, &layers, &content, &image).await;
        sent.map_err(|reason| failed(node, reason))?;
        made = Some((layers, content));
    }
    Ok(manifest(&ManifestOptions {
        publish_status_addresses: addresses,
        ..ManifestOptions::new(image)
    }))
}

/// The image's name: another one whenever this program is another one.
fn name() -> io::Result<String> {
    let program = fs::metadata("/proc/self/exe")?;
    let key = format!(
        "{} {} {}",
        program.len(),
        program.mtime(),
        program.mtime_nsec()
    );
    let (digest, _) = digest_of(key.as_bytes())?;
    let version = env!("CARGO_PKG_VERSION");
    let short = digest.trim_start_matches("sha256:").get(..12);
    Ok(format!(
        "devenv.local/ingress-controller:{version}-{}",
        short.unwrap_or_default()
    ))
}

/// The image's one layer, in a file that has no name.
fn make() -> io::Result<(File, Image)> {
    let libraries = libraries(&fs::read_to_string("/proc/self/maps")?);
    let mut layer = tempfile::tempfile()?;
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, &mut layer));
    let mut folders = BTreeSet::new();
    // The kubelet mounts over these.
    for folder in ["/dev", "/proc", "/sys", "/etc", "/tmp"] {
        make_folder(&mut tar, Path::new(folder), &mut folders)?;
    }
    let here = PathBuf::from("/proc/self/exe");
    add_file(&mut tar, Path::new(PROGRAM), &here, &mut folders)?;
    for library in &libraries {
        add_file(&mut tar, library, library, &mut folders)?;
    }
    tar.into_inner()?
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let mut reader = layer.try_clone()?;
    io::Seek::seek(&mut reader, io::SeekFrom::Start(0))?;
    let (digest, size) = digest_of(io::BufReader::with_capacity(1 << 20, reader))?;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": arch, "os": "linux",
        "config": {"Entrypoint": entrypoint(&libraries), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    Ok((layer, Image::of_one_layer(&config, digest, size)))
}

/// The shared libraries of a process, from its memory map (proc(5)).
fn libraries(maps: &str) -> Vec<PathBuf> {
    let paths = maps.lines().filter_map(|line| {
        let path = line.split_whitespace().nth(5)?;
        let name = Path::new(path).file_name()?.to_str()?;
        (name.contains(".so")).then(|| PathBuf::from(path))
    });
    paths.collect::<BTreeSet<_>>().into_iter().collect()
}

/// How the program is started: by its loader, which is told where the libraries are, so that
/// the image needs none of the links that a distribution has.
fn entrypoint(libraries: &[PathBuf]) -> Vec<String> {
    let is_loader = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("ld-"))
    };
    let Some(loader) = libraries.iter().find(is_loader) else {
        // It has all in itself.
        return vec![PROGRAM.to_owned()];
    };
    let folders: BTreeSet<String> = libraries
        .iter()
        .filter_map(|path| Some(path.parent()?.display().to_string()))
        .collect();
    let folders: Vec<String> = folders.into_iter().collect();
    vec![
        loader.display().to_string(),
        "--library-path".to_owned(),
        folders.join(":"),
        PROGRAM.to_owned(),
    ]
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn make_folder(
    tar: &mut tar::Builder<impl io::Write>,
    path: &Path,
    made: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let above: Vec<&Path> = path.ancestors().filter(|p| p.parent().is_some()).collect();
    for folder in above.into_iter().rev() {
        if made.insert(folder.to_owned()) {
            let name = folder.strip_prefix("/").unwrap_or(folder);
            let mut header = header(tar::EntryType::Directory, 0, 0o755);
            tar.append_data(&mut header, name, io::empty())?;
        }
    }
    Ok(())
}

fn add_file(
    tar: &mut tar::Builder<impl io::Write>,
    path: &Path,
    from: &Path,
    made: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(tar, folder, made)?;
    }
    let file = File::open(from)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o755 | 0o555;
    let mut header = header(tar::EntryType::Regular, metadata.len(), mode);
    let name = path.strip_prefix("/").unwrap_or(path);
    tar.append_data(&mut header, name, file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MAPS: &str = "\
55d0-55d1 r--p 00000000 08:01 1 /usr/bin/devenv
7f00-7f01 r-xp 00000000 08:01 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r--p 00000000 08:01 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 r-xp 00000000 08:01 3 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7ffc-7ffd rw-p 00000000 00:00 0 [stack]
";

    #[test]
    fn libraries_are_those_that_are_mapped() {
        let found = libraries(MAPS);
        assert_eq!(found.len(), 2, "{found:?}");
        let expected = [
            "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "--library-path",
            "/usr/lib/x86_64-linux-gnu",
            "/devenv",
        ];
        assert_eq!(entrypoint(&found), expected);
        assert_eq!(entrypoint(&[]), ["/devenv"]);
    }

    #[test]
    fn the_layer_has_this_program_and_what_it_needs() {
        let (mut layer, image) = make().unwrap();
        io::Seek::seek(&mut layer, io::SeekFrom::Start(0)).unwrap();
        let (digest, _) = digest_of(&layer).unwrap();
        assert_eq!(image.layers()[0].digest, digest);
        io::Seek::seek(&mut layer, io::SeekFrom::Start(0)).unwrap();
        let mut tar = tar::Archive::new(layer);
        let sizes: BTreeMap<PathBuf, u64> = tar
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                (e.path().unwrap().into_owned(), e.size())
            })
            .collect();
        let own = fs::metadata("/proc/self/exe").unwrap().len();
        assert_eq!(sizes[Path::new("devenv")], own);
        assert!(
            sizes
                .keys()
                .any(|p| p.to_str().unwrap().contains("libc.so"))
        );
    }
}
