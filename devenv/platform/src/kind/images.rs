//! What a node's containerd has for an image that nobody builds: what the kubelet pulled.

use std::collections::BTreeSet;

use bollard::Docker;

use super::cluster::Node;
use super::load::{CTR, exec};
use crate::target::ImageFact;

/// What the nodes run for an image, by the name that manifests use.
pub async fn on_nodes(docker: &Docker, nodes: &[Node], name: &str) -> ImageFact {
    let argv: Vec<&str> = CTR.into_iter().chain(["images", "ls"]).collect();
    let mut found = BTreeSet::new();
    for node in nodes {
        let failed = |why: &str| {
            ImageFact::Unknown(format!(
                "node {} does not tell its images: {why}",
                node.name
            ))
        };
        match exec(docker, &node.id, &argv, None).await {
            Ok(ran) if ran.ok => found.extend(id(&ran.out, name)),
            Ok(ran) => return failed(ran.err.trim()),
            Err(error) => return failed(&error.to_string()),
        }
    }
    let several = found.len() > 1;
    match found.pop_first() {
        Some(id) if !several => ImageFact::Digest(id),
        // Nobody knows on which of them its pods have been.
        Some(_) => ImageFact::Unknown("nodes have different images of this name".to_owned()),
        None => ImageFact::Unknown("no node of the cluster has an image of this name".to_owned()),
    }
}

/// The id of an image in what `ctr images ls` prints: containerd's CRI keeps each image under
/// its id beside its names, and all of them lead to one manifest.
fn id(listed: &str, name: &str) -> Option<String> {
    let name = whole(name);
    let rows = || {
        listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.nth(1)?))
        })
    };
    let (_, manifest) = rows().find(|(known, _)| *known == name)?;
    let mut ids = rows().filter(|(known, of)| known.starts_with("sha256:") && *of == manifest);
    ids.next().map(|(id, _)| id.to_owned())
}

/// An image's name as the kubelet has it: with registry, and with a tag or digest.
fn whole(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let is_registry = first.contains(['.', ':']) || first == "localhost";
    let name = match (is_registry, first) {
        (true, _) => name.to_owned(),
        (false, "") => format!("docker.io/library/{rest}"),
        (false, _) => format!("docker.io/{name}"),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        name
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LISTED: &str = "\
REF                                TYPE                                                 DIGEST     SIZE     PLATFORMS   LABELS
docker.io/library/busybox:1.36     application/vnd.docker.distribution.manifest.list.v2+json sha256:m1 2.1 MiB linux/amd64 io.cri-containerd.image=managed
docker.io/library/busybox@sha256:m1 application/vnd.docker.distribution.manifest.list.v2+json sha256:m1 2.1 MiB linux/amd64 io.cri-containerd.image=managed
localhost:5000/tool:latest         application/vnd.oci.image.manifest.v1+json           sha256:m2 1.0 MiB linux/amd64 -
sha256:c1                          application/vnd.docker.distribution.manifest.list.v2+json sha256:m1 2.1 MiB linux/amd64 io.cri-containerd.image=managed
";

    #[rstest]
    #[case::tag("busybox:1.36", Some("sha256:c1"))]
    #[case::whole("docker.io/library/busybox:1.36", Some("sha256:c1"))]
    #[case::digest("busybox@sha256:m1", Some("sha256:c1"))]
    #[case::another_tag("busybox", None)]
    // Imported, and not seen by the CRI yet.
    #[case::without_id("localhost:5000/tool", None)]
    fn an_image_is_known_by_its_id(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(id(LISTED, name).as_deref(), expected);
    }

    #[rstest]
    #[case("nginx", "docker.io/library/nginx:latest")]
    #[case("a/b:1", "docker.io/a/b:1")]
    #[case("localhost/a", "localhost/a:latest")]
    #[case("r.io/a@sha256:ab", "r.io/a@sha256:ab")]
    fn names_are_whole(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(whole(name), expected);
    }
}
