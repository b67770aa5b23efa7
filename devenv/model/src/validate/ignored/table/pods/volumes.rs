//! Volumes.

use std::path::{Component, Path};

use super::LIMITS;
use crate::validate::ignored::{Case, Lost, Part, When};

const NO_VOLUME: &str = "a container that mounts it is not started: an emptyDir, or a hostPath in the project, can stand for it in a local overlay";
const NO_FILE: &str =
    "a container that mounts the volume is not started: leave this out in a local overlay";

const fn never(field: &'static str, loss: &'static str) -> Lost {
    Lost {
        field,
        when: When::Set,
        loss,
    }
}

pub(super) static VOLUME: Part = Part {
    honoured: &["configMap", "name", "secret"],
    within: &[
        ("downwardAPI", &DOWNWARD),
        ("emptyDir", &EMPTY_DIR),
        ("projected", &PROJECTED),
    ],
    quiet: &[],
    lost: &[
        Lost {
            field: "hostPath",
            when: When::If(outside),
            loss: "a container that mounts it is not started: of the machine, only folders of the project are mounted",
        },
        never("awsElasticBlockStore", NO_VOLUME),
        never("azureDisk", NO_VOLUME),
        never("azureFile", NO_VOLUME),
        never("cephfs", NO_VOLUME),
        never("cinder", NO_VOLUME),
        never("csi", NO_VOLUME),
        never("ephemeral", NO_VOLUME),
        never("fc", NO_VOLUME),
        never("flexVolume", NO_VOLUME),
        never("flocker", NO_VOLUME),
        never("gcePersistentDisk", NO_VOLUME),
        never("gitRepo", NO_VOLUME),
        never("glusterfs", NO_VOLUME),
        never("image", NO_VOLUME),
        never("iscsi", NO_VOLUME),
        never("nfs", NO_VOLUME),
        never("persistentVolumeClaim", NO_VOLUME),
        never("photonPersistentDisk", NO_VOLUME),
        never("portworxVolume", NO_VOLUME),
        never("quobyte", NO_VOLUME),
        never("rbd", NO_VOLUME),
        never("scaleIO", NO_VOLUME),
        never("storageos", NO_VOLUME),
        never("vsphereVolume", NO_VOLUME),
    ],
};

/// Links are followed when the volume is made; here it is about what is written.
fn outside(case: &Case<'_>) -> bool {
    case.value.str_at("path").is_some_and(|path| {
        let path = Path::new(path);
        !path.starts_with(case.root) || path.components().any(|c| c == Component::ParentDir)
    })
}

static EMPTY_DIR: Part = Part {
    honoured: &["medium"],
    within: &[],
    // Enforced with medium Memory.
    quiet: &[(&["sizeLimit"], LIMITS)],
    lost: &[],
};

static DOWNWARD: Part = Part {
    honoured: &["defaultMode"],
    within: &[("items", &DOWNWARD_FILE)],
    quiet: &[],
    lost: &[],
};

static DOWNWARD_FILE: Part = Part {
    honoured: &["fieldRef", "mode", "path"],
    within: &[],
    quiet: &[],
    lost: &[never("resourceFieldRef", NO_FILE)],
};

static PROJECTED: Part = Part {
    honoured: &["defaultMode"],
    within: &[("sources", &PROJECTION)],
    quiet: &[],
    lost: &[],
};

static PROJECTION: Part = Part {
    honoured: &["configMap", "secret"],
    within: &[("downwardAPI", &PROJECTED_DOWNWARD)],
    quiet: &[],
    lost: &[
        never("clusterTrustBundle", NO_FILE),
        never("podCertificate", NO_FILE),
        never(
            "serviceAccountToken",
            "the file is not there: what asks the Kubernetes API or a cloud with it finds no credentials",
        ),
    ],
};

static PROJECTED_DOWNWARD: Part = Part {
    honoured: &[],
    within: &[("items", &DOWNWARD_FILE)],
    quiet: &[],
    lost: &[],
};
