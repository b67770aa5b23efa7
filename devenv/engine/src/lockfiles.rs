//! The files that decide what an install fetches.

use std::path::Path;

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

/// Whether an install reads this file.
pub fn decides(file: &Path) -> bool {
    let Some(name) = file.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    NAMES.contains(&name)
        // requirements.txt, requirements-dev.txt, dev-requirements.txt …
        || (name.contains("requirements") && name.ends_with(".txt"))
}

/// Whether what is fetched by this file ends up in what a compiler makes.
pub fn is_linked(file: &Path) -> bool {
    let name = file.file_name().and_then(|n| n.to_str());
    name.is_some_and(|n| matches!(n, "Cargo.toml" | "Cargo.lock" | "go.mod" | "go.sum"))
}

/// Whether one of them decides; where none does, everything counts.
pub fn any<'a>(mut files: impl Iterator<Item = &'a Path>) -> bool {
    files.any(decides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_do_not_decide_an_install_where_there_is_a_lock_file() {
        let some = |names: &[&'static str]| any(names.iter().map(|n| Path::new(*n)));
        assert!(some(&["web/main.ts", "web/package-lock.json"]));
        assert!(some(&["requirements-dev.txt"]));
        assert!(!some(&["web/main.ts", "readme.txt", "requirements.md"]));
    }
}
