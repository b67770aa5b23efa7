//! How an image that was built from source is started.

use std::path::Path;

use devenv_cluster::{Access, Bind, RunSpec};
use devenv_model::ImageSource;

/// Folder of the state folder with the virtual environments that installs made.
const VENVS: &str = "venvs";

/// The process runtime's view of an image: its program in the project's folder,
/// which the pod sees at its own path and may write to, as it may in a container:
/// what it writes is the pod's own and the checkout stays as it is.
///
/// Of the state folder `state` it sees the virtual environments alone, read-only.
pub fn run_spec(root: &Path, state: &Path, image: &ImageSource) -> RunSpec {
    let cwd = image.workdir.clone();
    let mut argv = image.run.argv();
    if let Some(program) = argv.first_mut().filter(|p| p.contains('/')) {
        *program = cwd.join(&*program).display().to_string();
    }
    let shown = |path: &Path, access| Bind {
        source: path.to_owned(),
        target: path.to_owned(),
        access,
    };
    let mut binds = vec![shown(root, Access::Overlay)];
    let venvs = state.join(VENVS);
    if venvs.is_dir() {
        binds.push(shown(&venvs, Access::ReadOnly));
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
        binds,
    }
}
