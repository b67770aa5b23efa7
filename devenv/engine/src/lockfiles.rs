//! The files that decide what an install fetches.

use std::path::{Path, PathBuf};

use crate::fingerprint;

/// Manifests and lock files by package manager; an install reads nothing else.
const NAMES: &[&str] = &[
    // npm, pnpm, yarn
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "yarn.lock",
    ".npmrc",
    // Python
    "pyproject.toml",
    "poetry.lock",
    "uv.lock",
    "Pipfile",
    "Pipfile.lock",
    "setup.py",
    "setup.cfg",
    // Rust, Go, Ruby, Java
    "Cargo.toml",
    "Cargo.lock",
    "go.mod",
    "go.sum",
    "Gemfile",
    "Gemfile.lock",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "gradle.lockfile",
];

fn decides(file: &Path) -> bool {
    let Some(name) = file.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    NAMES.contains(&name)
        // requirements.txt, requirements-dev.txt, dev-requirements.txt …
        || (name.contains("requirements") && name.ends_with(".txt"))
}

/// The files below `inputs` that an install reads: those of package managers, or
/// everything where there is none of a known name.
///
/// # Errors
/// When a folder can't be read.
pub fn of(root: &Path, inputs: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = fingerprint::files(root, inputs)?;
    if files.iter().any(|f| decides(f)) {
        files.retain(|f| decides(f));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn sources_do_not_decide_an_install_where_there_is_a_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("web")).unwrap();
        for file in [
            "web/main.ts",
            "web/package.json",
            "web/package-lock.json",
            "readme.txt",
        ] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        let names = |inputs: &[&str]| -> Vec<String> {
            let inputs: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
            let files = of(dir.path(), &inputs).unwrap();
            let short = |f: &PathBuf| f.file_name().unwrap().to_str().unwrap().to_owned();
            files.iter().map(short).collect()
        };
        assert_eq!(names(&["web"]), ["package-lock.json", "package.json"]);
        assert_eq!(
            names(&["web/main.ts", "readme.txt"]),
            ["readme.txt", "main.ts"]
        );
        assert!(decides(Path::new("requirements-dev.txt")));
    }
}
