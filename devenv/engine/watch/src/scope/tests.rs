use rstest::rstest;

use super::*;

/// Inputs of a project: owner, path, patterns, whether git's rules hold.
const INPUTS: &[(u32, &str, &[&str], bool)] = &[
    (1, "/p/api", &[], true),
    (2, "/p/api", &["docs/", "*.md", "!README.md"], false),
    (3, "/p", &[], true),
    (3, "/p/api", &[], true),
    (4, "/p/Cargo.lock", &[], true),
    (5, "/p/api/target/gen", &[], true),
    (6, "/p/web", &["!dist", "/src"], true),
];

fn scopes() -> Scopes {
    let scope = |(owner, top, ignore, git): &(u32, &str, &[&str], bool)| {
        let ignore: Vec<String> = ignore.iter().map(|p| (*p).to_owned()).collect();
        Scope::new(*owner, PathBuf::from(top), &ignore, *git).unwrap()
    };
    Scopes::new(INPUTS.iter().map(scope).collect())
}

/// Who reads a path, found as the walk finds it: a folder at a time.
fn owners(path: &str, is_dir: bool) -> Vec<u32> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".gitignore"), "target\ndist\n*.log\n").unwrap();
    let (scopes, rules) = (scopes(), Rules::none());
    let rules = Rules::of(&rules, dir.path(), true, false);
    // The rules are those of the temporary folder, which has no say in where things
    // are: names match in any folder.
    let path = Path::new(path);
    let mut ids: Arc<[Id]> = Arc::default();
    let ancestors: Vec<_> = path.ancestors().collect();
    for at in ancestors.into_iter().rev() {
        ids = scopes.counting(&ids, at, is_dir || at != path, &rules);
    }
    scopes.owners(&ids)
}

#[rstest]
#[case("/p", &[3])]
#[case("/p/api", &[1, 2, 3])]
#[case("/p/api/src", &[1, 2, 3])]
// What begins alike is another folder.
#[case("/p/apis", &[3])]
#[case("/q", &[])]
#[case("/p/web", &[3, 6])]
#[case("/p/web/src", &[3])]
#[case("/p/web/lib/src", &[3, 6])]
// Ignored by git, except for whom it isn't.
#[case("/p/api/target", &[2])]
#[case("/p/web/dist", &[6])]
#[case("/p/web/dist/assets", &[6])]
// An input counts wherever it is, and within it not only for whom it is given.
#[case("/p/api/target/gen", &[2, 5])]
#[case("/p/api/target/gen/deep", &[2, 5])]
#[case("/p/api/docs", &[1, 3])]
// Never.
#[case("/p/api/.git", &[])]
#[case("/p/api/.devenv", &[])]
#[case("/p/api/.github", &[1, 2, 3])]
fn folders_have_owners(#[case] path: &str, #[case] expected: &[u32]) {
    assert_eq!(owners(path, true), expected);
}

#[rstest]
#[case("/p/Cargo.lock", &[3, 4])]
#[case("/p/Cargo.toml", &[3])]
#[case("/p/api/main.rs", &[1, 2, 3])]
#[case("/p/api/a.log", &[2])]
#[case("/p/api/NOTES.md", &[1, 3])]
#[case("/p/api/README.md", &[1, 2, 3])]
#[case("/p/api/docs", &[1, 2, 3])]
#[case("/p/api/docs/index.html", &[1, 3])]
#[case("/p/api/target/gen/a.rs", &[2, 5])]
#[case("/p/api/target/debug", &[2])]
fn files_have_owners(#[case] path: &str, #[case] expected: &[u32]) {
    assert_eq!(owners(path, false), expected);
}

#[test]
fn inputs_are_found_by_their_path() {
    let scopes = scopes();
    assert_eq!(scopes.owners(&scopes.at(Path::new("/p/api"))), [1, 2, 3]);
    assert_eq!(
        scopes.owners(&scopes.at(Path::new("/p/ap"))),
        [] as [u32; 0]
    );
    let tops = scopes.tops();
    let place = |top: &str| tops.iter().position(|t| t == Path::new(top)).unwrap();
    assert!(place("/p") < place("/p/api") && place("/p/api") < place("/p/api/target/gen"));
}

#[test]
fn a_pattern_that_is_none_is_named() {
    let error = Scope::new(
        0,
        PathBuf::from("/p"),
        &["a".to_owned(), "{".to_owned()],
        true,
    );
    assert!(matches!(error, Err(WatchError::Pattern { pattern, .. }) if pattern == "{"));
}
