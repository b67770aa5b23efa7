//! Which images the workloads of a running system run: what its endpoints say of them.

use devenv_cluster::{RUNTIME_ANNOTATION, RUNTIME_PROCESS};
use devenv_model::{Object, Topology};
use devenv_platform::{ImageFact, Images, TargetKind};

use crate::live::Live;

impl Live {
    /// The images that workloads run, by the names that manifests use; none where pods are
    /// processes.
    pub fn images(&self) -> Images {
        if self.target.containers().is_none() {
            return Images::new();
        }
        let topology = self.topology();
        let processes = self.target.endpoints().target == TargetKind::Local;
        known(&topology, &self.ids(), processes)
    }

    /// Brings what is published of them up to date; before the system is ready nothing is.
    pub async fn tell_images(&self) {
        let _turn = self.telling.lock().await;
        let Some(mut endpoints) = self.home.endpoints() else {
            return;
        };
        let before = endpoints.images.clone();
        endpoints.images.extend(self.images());
        if endpoints.images == before {
            return;
        }
        if let Err(error) = self.home.publish(&endpoints) {
            // Whoever asks is told of the images of before, and compares them with others.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "which images run is not told any more"
            );
        }
    }
}

/// What `ids`, of the images that were delivered, says of those that workloads use, all of
/// which are built here. With `processes` pods may ask to be processes.
fn known(topology: &Topology, ids: &Images, processes: bool) -> Images {
    let mut known = Images::new();
    for (name, users) in topology.workload_images() {
        let as_process = users.iter().find(|o| processes && is_process(o));
        let fact = match (as_process, ids.get(name)) {
            (Some(user), _) => ImageFact::Unknown(format!(
                "{user} asks for processes ({RUNTIME_ANNOTATION}), which run no image"
            )),
            (None, Some(fact)) => fact.clone(),
            (None, None) => ImageFact::Unknown("it was not built".to_owned()),
        };
        known.insert(name.to_owned(), fact);
    }
    known
}

/// Whether the pods of an object are processes also where others are containers.
fn is_process(object: &Object) -> bool {
    let metadata = match object.pod_template() {
        Some((metadata, _)) => metadata,
        // A pod by itself.
        None => &["metadata"],
    };
    let path = metadata.iter().chain(&["annotations", RUNTIME_ANNOTATION]);
    let asked = path
        .copied()
        .try_fold(object.value(), |value, key| value.get(key));
    asked.and_then(serde_json::Value::as_str) == Some(RUNTIME_PROCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::project;

    fn deployment(name: &str, image: &str, annotations: &str) -> String {
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
             metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n    \
             spec: {{containers: [{{name: c, image: \"{image}\"}}]}}\n"
        )
    }

    #[test]
    fn what_was_delivered_is_known_and_the_rest_is_said() {
        let manifest = [
            deployment("one", "registry.example/web:v1", ""),
            deployment("two", "web", "devenv.dev/runtime: process"),
        ]
        .concat();
        let (_dir, topology) = project(&manifest);
        let ids = ["registry.example/web:v1", "web"];
        let digest = ImageFact::Digest("sha256:aa".to_owned());
        let ids = ids.map(|name| (name.to_owned(), digest.clone()));
        let ids = Images::from(ids);
        let facts = known(&topology, &ids, true);
        assert_eq!(facts["registry.example/web:v1"], digest);
        let ImageFact::Unknown(why) = &facts["web"] else {
            panic!("{facts:?}");
        };
        assert!(why.contains("two asks for processes"), "{why}");
        // A real cluster knows nothing of that.
        let facts = known(&topology, &ids, false);
        assert_eq!(facts["web"], digest);
        // Nothing is claimed of what was not delivered.
        let facts = known(&topology, &Images::new(), false);
        assert_eq!(
            facts["web"],
            ImageFact::Unknown("it was not built".to_owned())
        );
    }
}
