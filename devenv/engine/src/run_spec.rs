//! How an image that was built from source is started.

use std::path::Path;

use devenv_cluster::RunSpec;
use devenv_model::ImageSource;

/// The process runtime's view of an image: its program in the project's folder,
/// which the pod sees at its own path.
pub fn run_spec(root: &Path, image: &ImageSource) -> RunSpec {
    let cwd = image.workdir.clone();
    let mut argv = image.run.argv();
    if let Some(program) = argv.first_mut().filter(|p| p.contains('/')) {
        *program = cwd.join(&*program).display().to_string();
    }
    RunSpec {
        argv,
        cwd: cwd.clone(),
        workdir: None,
        env: image
            .env
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        binds: vec![(root.to_owned(), root.to_owned(), true)],
    }
}
