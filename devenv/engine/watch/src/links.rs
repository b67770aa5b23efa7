//! Where symlinks lead.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// As many as the kernel follows.
const MOST: usize = 40;

/// One step of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

/// Every symlink that is followed on the way to what `path` leads to, each by the name
/// that it has in its own folder, and where it all ends, which need not exist.
pub(crate) fn followed(path: &Path) -> (Vec<PathBuf>, PathBuf) {
    let mut links = Vec::new();
    let mut real = PathBuf::new();
    let mut steps = Vec::new();
    add(&mut steps, path);
    while let Some(step) = steps.pop() {
        match step {
            Step::Root => real.push("/"),
            Step::Up => {
                real.pop();
            }
            Step::Down(name) => {
                real.push(name);
                if links.len() < MOST
                    && let Ok(target) = fs::read_link(&real)
                {
                    links.push(real.clone());
                    real.pop();
                    add(&mut steps, &target);
                }
            }
        }
    }
    (links, real)
}

/// The first step last, where it is taken from.
fn add(steps: &mut Vec<Step>, path: &Path) {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    });
    steps.extend(parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(dir.join("releases/42/lib")).unwrap();
        symlink("releases/42", dir.join("current")).unwrap();
        symlink("../current/lib/../missing", dir.join("releases/x")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let names = |name: &str| {
            let (links, end) = followed(&dir.join(name));
            let short = |p: &PathBuf| p.strip_prefix(&dir).unwrap().to_str().unwrap().to_owned();
            (links.iter().map(short).collect::<Vec<_>>(), short(&end))
        };
        assert_eq!(names("releases/42"), (vec![], "releases/42".to_owned()));
        assert_eq!(
            names("releases/x/y"),
            (
                vec!["releases/x".to_owned(), "current".to_owned()],
                "releases/42/missing/y".to_owned()
            )
        );
        assert_eq!(names("loop").0.len(), MOST);
    }
}
