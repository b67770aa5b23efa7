//! What tools make beside the sources.

/// Patterns in the form of `.gitignore`: folders and files that package managers,
/// compilers and interpreters make. They are no input, also where no `.gitignore` says so.
pub const MADE: &[&str] = &[
    ".git/",
    ".devenv/",
    ".devenv-gke/",
    "node_modules/",
    "target/",
    "__pycache__/",
    "*.pyc",
    ".venv/",
    "venv/",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".gradle/",
    ".next/",
    ".nuxt/",
];
