//! How an image that was built from source is started.

use std::{
    fs,
    path::{Path, PathBuf},
};

use devenv_cluster::{Access, Bind, RunSpec};
use devenv_model::{ImageSource, Reload};

use crate::venv;

/// The process runtime's view of an image: its program in the project's folder,
/// which the pod sees at its own path and may write to, as it may in a container:
/// what it writes is the pod's own and the checkout stays as it is. A program that
/// reloads itself gets the folder itself, because it would not be told of changes
/// below an overlay.
///
/// The folder where it runs appears at the image's WORKDIR as well, for paths that the program or
/// the manifest spells out, unless this machine has something of its own there. The
/// program still starts in its own folder: what lies above that, such as a
/// workspace's `node_modules`, belongs to it.
///
/// `active` is the virtual environment that it finds active. Of the state folder `state` it sees the virtual environments alone, read-only.
pub fn run_spec(root: &Path, state: &Path, image: &ImageSource, active: Option<&Path>) -> RunSpec {
    let cwd = image.workdir.clone();
    let mut argv = image.run.argv();
    if let Some(program) = argv.first_mut().filter(|p| p.contains('/')) {
        *program = cwd.join(&*program).display().to_string();
    }
    let access = match image.reload {
        Reload::Sync => Access::ReadWrite,
        Reload::Restart | Reload::Build | Reload::Manual => Access::Overlay,
    };
    let shown = |source: &Path, target: &Path, access| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
    };
    let mut binds = vec![shown(root, root, access)];
    let free = |path: &&PathBuf| is_free(path);
    if let Some(workdir) = image.image_workdir.as_ref().filter(free) {
        binds.push(shown(&cwd, workdir, access));
    }
    let venvs = state.join(venv::FOLDER);
    if venvs.is_dir() {
        binds.push(shown(&venvs, &venvs, Access::ReadOnly));
    }
    RunSpec {
        argv,
        cwd,
        workdir: None,
        env: environment(image, active),
        binds,
        container: None,
    }
}

fn environment(image: &ImageSource, active: Option<&Path>) -> Vec<(String, String)> {
    let own = image.env.iter().map(|(k, v)| (k.clone(), v.clone()));
    let Some(active) = active else {
        return own.collect();
    };
    // This machine's programs stay to be found after those of the environment.
    let machine = std::env::var("PATH").map(|p| ("PATH".to_owned(), p));
    let machine = machine
        .into_iter()
        .filter(|_| !image.env.contains_key("PATH"));
    venv::activated(active, &machine.chain(own).collect::<Vec<_>>())
}

/// Whether covering `path` takes nothing of this machine from the program: a WORKDIR
/// of `/usr/local/bin` would take its interpreter.
fn is_free(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn image(root: &Path, reload: Reload, image_workdir: &Path) -> ImageSource {
        ImageSource {
            name: "web".into(),
            source: root.join("web"),
            watch: Vec::new(),
            ignore: Vec::new(),
            install: None,
            build: None,
            run: devenv_model::Command::Argv(vec!["./serve".into(), "-v".into()]),
            entrypoint: 2,
            debug: None,
            reload,
            workdir: root.join("web/sub"),
            image_workdir: Some(image_workdir.to_owned()),
            env: [("A".into(), "b".into())].into(),
            python: None,
            container: None,
            inferred: Vec::new(),
            origin: devenv_model::Origin {
                file: "devenv.toml".into(),
                line: 1,
                column: 1,
            },
        }
    }

    fn binds(spec: &RunSpec) -> Vec<(&Path, &Path, Access)> {
        let binds = spec.binds.iter();
        binds
            .map(|b| (b.source.as_path(), b.target.as_path(), b.access))
            .collect()
    }

    #[rstest]
    #[case(Reload::Restart, Access::Overlay)]
    #[case(Reload::Build, Access::Overlay)]
    #[case(Reload::Manual, Access::Overlay)]
    #[case(Reload::Sync, Access::ReadWrite)]
    fn the_source_is_shown_as_the_reload_mode_needs_it(
        #[case] reload: Reload,
        #[case] access: Access,
    ) {
        let root = Path::new("/home/me/project");
        let workdir = Path::new("/no/such/app");
        let image = image(root, reload, workdir);
        let spec = run_spec(root, &root.join(".devenv"), &image, None);
        assert_eq!(spec.argv, ["/home/me/project/web/sub/./serve", "-v"]);
        assert_eq!(
            binds(&spec),
            [
                (root, root, access),
                (root.join("web/sub").as_path(), workdir, access),
            ]
        );
    }

    #[test]
    fn virtual_environments_are_shown_and_the_machine_is_not_covered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let venvs = root.join(".devenv/venvs");
        fs::create_dir_all(&venvs).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        let at = |workdir: &Path| {
            run_spec(
                root,
                &root.join(".devenv"),
                &image(root, Reload::Build, workdir),
                Some(&venvs.join("web-1")),
            )
        };
        let env = at("/usr/bin".as_ref()).env;
        let path = env.iter().find(|(name, _)| name == "PATH");
        let first = venvs.join("web-1/bin").display().to_string();
        assert!(path.is_some_and(|(_, p)| p.starts_with(&first)), "{env:?}");
        assert!(env.iter().any(|(name, _)| name == "VIRTUAL_ENV"), "{env:?}");
        let project = (root, root, Access::Overlay);
        let venvs = (venvs.as_path(), venvs.as_path(), Access::ReadOnly);
        assert_eq!(binds(&at("/usr/bin".as_ref())), [project, venvs]);
        let empty = root.join("empty");
        let alias = (root.join("web/sub"), Access::Overlay);
        assert_eq!(
            binds(&at(&empty)),
            [project, (&alias.0, &empty, alias.1), venvs]
        );
    }
}
