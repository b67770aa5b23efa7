use std::os::unix::fs::PermissionsExt;

use rstest::rstest;

use super::*;

const KEY: Key = Key::Node(1, 2);

type Change = (&'static str, bool, What);

const GONE: What = What::Gone { moved: true };
const CAME: What = What::Came { new: true };

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// What a round finds after something was done to a folder with a file and a folder.
#[rstest]
#[case::nothing(|_: &Path| {}, &[])]
#[case::read(|d: &Path| { fs::read(d.join("file")).unwrap(); }, &[])]
#[case::written(|d: &Path| write(d, "file", "more"), &[("file", false, What::Changed)])]
#[case::touched(|d: &Path| {
    let file = fs::File::options().append(true).open(d.join("file")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
}, &[("file", false, What::Changed)])]
#[case::executable(|d: &Path| {
    fs::set_permissions(d.join("file"), fs::Permissions::from_mode(0o755)).unwrap();
}, &[("file", false, What::Changed)])]
#[case::new(|d: &Path| write(d, "new", ""), &[("new", false, CAME)])]
#[case::new_folder(|d: &Path| fs::create_dir(d.join("new")).unwrap(), &[("new", true, CAME)])]
#[case::deleted(|d: &Path| fs::remove_file(d.join("file")).unwrap(), &[("file", false, GONE)])]
#[case::renamed(|d: &Path| fs::rename(d.join("file"), d.join("new")).unwrap(),
    &[("file", false, GONE), ("new", false, CAME)])]
#[case::another_kind(|d: &Path| {
    fs::remove_dir(d.join("folder")).unwrap();
    write(d, "folder", "");
}, &[("folder", true, GONE), ("folder", false, CAME)])]
#[case::another_folder(|d: &Path| {
    let other = d.with_file_name("other");
    fs::create_dir(&other).unwrap();
    fs::rename(other, d.join("folder")).unwrap();
}, &[("folder", true, GONE), ("folder", true, CAME)])]
// What is in a folder is that folder's to tell.
#[case::below(|d: &Path| write(&d.join("folder"), "file", ""), &[])]
#[case::all_gone(|d: &Path| fs::remove_dir_all(d).unwrap(),
    &[("file", false, GONE), ("folder", true, GONE)])]
fn a_round_finds_what_is_otherwise(#[case] change: fn(&Path), #[case] expected: &[Change]) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("polled");
    fs::create_dir_all(folder.join("folder")).unwrap();
    write(&folder, "file", "x");
    let polls = Polls::new(Duration::ZERO);
    polls.add(KEY, &folder.as_path().into(), None);
    change(&folder);
    let mut found: Vec<_> = polls
        .round()
        .into_iter()
        .map(|f| (f.name.into_string().unwrap(), f.is_dir, f.what))
        .collect();
    found.sort_by_key(|(name, _, what)| (*what != GONE, name.clone()));
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, is_dir, what)| ((*name).to_owned(), *is_dir, *what))
        .collect();
    assert_eq!(found, expected);
    // And it is told of once.
    assert!(polls.round().is_empty());
}

#[test]
fn one_name_may_be_all_that_matters() {
    let dir = tempfile::tempdir().unwrap();
    let path: Arc<Path> = dir.path().into();
    let polls = Polls::new(Duration::ZERO);
    polls.add(KEY, &path, Some(OsStr::new("a")));
    write(&path, "a", "");
    write(&path, "b", "");
    let names =
        |polls: &Polls| -> Vec<OsString> { polls.round().into_iter().map(|f| f.name).collect() };
    assert_eq!(names(&polls), ["a"]);
    // What is there when all of it begins to matter is no news.
    polls.add(KEY, &path, None);
    assert!(names(&polls).is_empty());
    write(&path, "c", "");
    assert_eq!(names(&polls), ["c"]);
    // A change before everything is said anew is not lost by it, and what isn't asked
    // for any more is not missed.
    write(&path, "a", "changed");
    polls.mark();
    polls.add(KEY, &path, Some(OsStr::new("a")));
    polls.sweep();
    assert_eq!(names(&polls), ["a"]);
    write(&path, "b", "changed");
    assert!(names(&polls).is_empty());
    polls.mark();
    polls.sweep();
    write(&path, "a", "");
    assert!(names(&polls).is_empty());
}
