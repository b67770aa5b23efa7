use super::*;

fn image(root: &Path, ignore: &[&str]) -> ImageSource {
    ImageSource {
        ignore: ignore.iter().map(|s| (*s).to_owned()).collect(),
        ..crate::testing::image("web", root)
    }
}

struct Tree {
    dir: tempfile::TempDir,
    prints: Prints,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prints = Prints::new(dir.path());
        Self { dir, prints }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn digest(&mut self, ignore: &[&str], hint: Hint) -> String {
        let image = image(self.dir.path(), ignore);
        self.prints.refresh(&image, &hint).unwrap();
        self.prints.digest(&image)
    }

    fn all(&mut self) -> String {
        self.digest(&[], Hint::All)
    }
}

fn paths(paths: &[&Path]) -> Hint {
    Hint::Paths(paths.iter().map(|p| (*p).to_owned()).collect())
}

#[test]
fn contents_and_names_count_and_ignored_files_do_not() {
    let mut tree = Tree::new();
    tree.write("a", "1");
    tree.write(".gitignore", "*.log\n");
    let first = tree.all();
    tree.write("x.log", "noise");
    tree.write("node_modules/x/index.js", "noise");
    tree.write("sub/__pycache__/a.cpython-311.pyc", "noise");
    tree.write("a", "1");
    assert_eq!(first, tree.all());
    tree.write("a", "2");
    let second = tree.all();
    assert_ne!(first, second);
    fs::rename(tree.dir.path().join("a"), tree.dir.path().join("b")).unwrap();
    assert_ne!(second, tree.all());
    let third = tree.all();
    tree.write("docs/readme.md", "words");
    assert_ne!(third, tree.all());
    assert_eq!(third, tree.digest(&["docs/"], Hint::All));
}

#[test]
fn a_hint_gives_the_same_as_a_whole_look() {
    let mut tree = Tree::new();
    let (a, b) = (tree.write("a", "1"), tree.write("sub/b", "1"));
    tree.all();
    for round in 0..50 {
        // The same size within the same tick of the clock.
        fs::write(&a, format!("{}", round % 10)).unwrap();
        let hinted = tree.digest(&[], paths(&[&a]));
        let mut fresh = Prints::new(tree.dir.path());
        let image = image(tree.dir.path(), &[]);
        fresh.refresh(&image, &Hint::All).unwrap();
        assert_eq!(hinted, fresh.digest(&image), "round {round}");
    }
    let before = tree.all();
    fs::remove_file(&b).unwrap();
    let without = tree.digest(&[], paths(&[&b]));
    assert_ne!(before, without);
    tree.write("sub/b", "1");
    assert_eq!(before, tree.digest(&[], paths(&[b.parent().unwrap()])));
    fs::remove_dir_all(tree.dir.path().join("sub")).unwrap();
    assert_eq!(without, tree.digest(&[], paths(&[b.parent().unwrap()])));
}

#[test]
fn an_executable_bit_counts_and_a_touch_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let mut tree = Tree::new();
    let run = tree.write("run.sh", "#!/bin/sh\n");
    let first = tree.all();
    fs::File::open(&run)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(first, tree.digest(&[], paths(&[&run])));
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(first, tree.all());
}

#[test]
fn links_in_a_circle_and_to_nowhere_are_passed_over() {
    let mut tree = Tree::new();
    tree.write("a", "1");
    let first = tree.all();
    std::os::unix::fs::symlink(".", tree.dir.path().join("circle")).unwrap();
    std::os::unix::fs::symlink("gone", tree.dir.path().join("nowhere")).unwrap();
    assert_eq!(first, tree.all());
}

#[test]
fn commands_and_environment_count() {
    let tree = Tree::new();
    let mut prints = Prints::new(tree.dir.path());
    let mut image = image(tree.dir.path(), &[]);
    prints.refresh(&image, &Hint::All).unwrap();
    let first = prints.digest(&image);
    image.env.insert("A".into(), "b".into());
    let second = prints.digest(&image);
    image.build = Some(devenv_model::Command::Shell("make".into()));
    assert_eq!(
        BTreeSet::from([first, second, prints.digest(&image)]).len(),
        3
    );
}
