use rstest::rstest;

use super::*;

/// A repository with another one in it, and a worktree.
fn repository() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write(".gitignore", "outside\n");
    write("repo/.git/info/exclude", "private\n!*.keep\n");
    write("repo/.gitignore", "*.log\n/build/\n*.keep\n");
    write("repo/src/.gitignore", "!special.log\ngen\n");
    write("repo/inner/.git/HEAD", "");
    write("repo/inner/.gitignore", "own\n");
    write("tree/.git", "gitdir: ../repo/.git/worktrees/tree\n");
    write("repo/.git/worktrees/tree/commondir", "../..\n");
    let path = fs::canonicalize(dir.path()).unwrap();
    (dir, path)
}

/// The rules that hold in a folder, found from above it and, as a walk does, in it.
fn rules_in(folder: &Path, root: &Path) -> Arc<Rules> {
    let (above, _) = Rules::above(folder, root);
    let has = |name: &str| folder.join(name).exists();
    Rules::of(&above, folder, has(".gitignore"), has(".git"))
}

#[rstest]
#[case("repo", "a.log", false, true)]
#[case("repo", "a.txt", false, false)]
#[case("repo", "build", true, true)]
#[case("repo", "build", false, false)]
#[case("repo", "private", false, true)]
#[case("repo", "a.keep", false, true)]
// Not from above the repository.
#[case("repo", "outside", false, false)]
#[case("repo/src", "a.log", false, true)]
#[case("repo/src", "special.log", false, false)]
#[case("repo/src", "build", true, false)]
#[case("repo/src", "gen", true, true)]
#[case("repo/src", "private", true, true)]
// Another repository has rules of its own.
#[case("repo/inner", "a.log", false, false)]
#[case("repo/inner", "own", false, true)]
// A worktree shares the repository's exclude file.
#[case("tree", "private", false, true)]
#[case("tree", "a.log", false, false)]
fn git_ignores(
    #[case] folder: &str,
    #[case] name: &str,
    #[case] is_dir: bool,
    #[case] ignored: bool,
) {
    let (_dir, root) = repository();
    let folder = root.join(folder);
    let rules = rules_in(&folder, &root);
    assert_eq!(rules.ignores(&folder.join(name), is_dir), ignored);
}

#[test]
fn without_a_repository_the_root_is_the_top() {
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir_all(dir.join("root/src")).unwrap();
    fs::write(dir.join(".gitignore"), "a\n").unwrap();
    fs::write(dir.join("root/.gitignore"), "b\n").unwrap();
    let (root, src) = (dir.join("root"), dir.join("root/src"));
    let rules = rules_in(&src, &root);
    assert!(!rules.ignores(&src.join("a"), false));
    assert!(rules.ignores(&src.join("b"), false));
}

#[test]
fn the_files_that_rules_come_from_are_known() {
    let (_dir, root) = repository();
    let (_, files) = Rules::above(&root.join("repo/src"), &root);
    assert_eq!(
        files,
        [
            root.join("repo/.gitignore"),
            root.join("repo/.git/info/exclude")
        ]
    );
    // Those of a repository's own root are not above it.
    let (_, files) = Rules::above(&root.join("repo"), &root);
    assert_eq!(files, [] as [PathBuf; 0]);
    assert_eq!(
        exclude_file(&root.join("repo")),
        Some(root.join("repo/.git/info/exclude"))
    );
}
