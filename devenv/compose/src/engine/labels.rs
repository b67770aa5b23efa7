//! The labels by which Compose 2 finds what is its own.

use std::collections::HashMap;

use crate::project::{Project, Service};

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
pub(super) const IMAGE: &str = "com.docker.compose.image";
pub(super) const DEPENDS_ON: &str = "com.docker.compose.depends_on";
pub(super) const NETWORK: &str = "com.docker.compose.network";
pub(super) const VOLUME: &str = "com.docker.compose.volume";
pub(super) const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
const VERSION: &str = "com.docker.compose.version";

/// The Compose whose labels and hashes are followed.
const FOLLOWED: &str = "2.26.1";

type Labels = HashMap<String, String>;

fn ours(project: &str) -> Labels {
    Labels::from([
        (PROJECT.into(), project.into()),
        (VERSION.into(), FOLLOWED.into()),
    ])
}

/// Of a service's container, made of the image with this id. Compose's own win over what
/// the file says.
pub(super) fn container(project: &Project, service: &Service, image: &str) -> Labels {
    let depends_on: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, d)| format!("{name}:{}:{}", d.condition.as_str(), d.restart))
        .collect();
    let mut labels: Labels = service.labels.clone().into_iter().collect();
    labels.extend(ours(&project.name));
    labels.extend([
        (SERVICE.into(), service.name.clone()),
        (CONFIG_HASH.into(), service.config_hash()),
        (NUMBER.into(), "1".into()),
        (ONE_OFF.into(), "False".into()),
        (IMAGE.into(), image.into()),
        (DEPENDS_ON.into(), depends_on.join(",")),
        (
            WORKING_DIR.into(),
            project.working_dir.display().to_string(),
        ),
        (CONFIG_FILES.into(), project.file.display().to_string()),
    ]);
    labels
}

/// Of a network or volume, over what the file says.
pub(super) fn resource(
    project: &Project,
    label: &str,
    key: &str,
    written: &std::collections::BTreeMap<String, String>,
) -> Labels {
    let mut labels: Labels = written.clone().into_iter().collect();
    labels.extend(ours(&project.name));
    labels.insert(label.into(), key.into());
    // Compose has it on containers alone; here it tells checkouts apart whose projects
    // have the same name.
    let working_dir = project.working_dir.display().to_string();
    labels.insert(WORKING_DIR.into(), working_dir);
    labels
}

/// The filter for all that has the project's label.
pub(super) fn filter(project: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".into(), vec![format!("{PROJECT}={project}")])])
}
