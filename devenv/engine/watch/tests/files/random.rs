//! Whatever is done to a tree, every difference is told of and every folder is watched.

use std::os::unix::fs::symlink;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rstest::rstest;

use super::*;

/// Folders; `x` is the one that may be ignored.
const FOLDERS: &[&str] = &["a", "b", "x"];
const FILES: &[&str] = &["f", "g"];
const LINKS: &[&str] = &["l", "k"];

/// A path of one to three folders.
fn folder(rng: &mut impl Rng) -> String {
    let depth = rng.random_range(1..4);
    let names: Vec<&str> = (0..depth).map(|_| *FOLDERS.choose(rng).unwrap()).collect();
    names.join("/")
}

fn file(rng: &mut impl Rng) -> String {
    format!("{}/{}", folder(rng), FILES.choose(rng).unwrap())
}

/// Does something, and says what; much of it fails, which is fine.
fn act(rng: &mut impl Rng, dir: &Path, outside: &Path, round: usize) -> String {
    let text = format!("{round} {}", rng.random::<u64>());
    let path = |name: &str| dir.join(name);
    let link = LINKS.choose(rng).unwrap();
    let (from, to) = (folder(rng), folder(rng));
    let (file, other) = (file(rng), file(rng));
    let (what, result) = match rng.random_range(0..13) {
        0..3 => (format!("write {file}"), {
            let folder = path(&file).parent().unwrap().to_owned();
            fs::create_dir_all(folder).and_then(|()| fs::write(path(&file), text))
        }),
        3 => (format!("rm {file}"), fs::remove_file(path(&file))),
        4 => (
            format!("mv {file} {other}"),
            fs::rename(path(&file), path(&other)),
        ),
        5 => (format!("write over {file}"), {
            let temporary = path("witness/temporary");
            fs::write(&temporary, text).and_then(|()| fs::rename(temporary, path(&file)))
        }),
        6 => (format!("mkdir -p {to}"), fs::create_dir_all(path(&to))),
        7 => (format!("rm -r {from}"), fs::remove_dir_all(path(&from))),
        8 => (
            format!("mv {from} {to}"),
            fs::rename(path(&from), path(&to)),
        ),
        9 => (
            format!("ln -s {to} a/{link}"),
            symlink(path(&to), path(&format!("a/{link}"))),
        ),
        10 => (
            format!("ln -s outside {link}"),
            symlink(outside, path(link)),
        ),
        11 => {
            let at = if rng.random() { "a/" } else { "" };
            let link = format!("{at}{link}");
            (format!("rm {link}"), fs::remove_file(path(&link)))
        }
        _ => {
            let rules = if rng.random() { "x\n" } else { "\n" };
            (
                format!("ignore {rules:?}"),
                fs::write(path(".gitignore"), rules),
            )
        }
    };
    what + if result.is_ok() { "" } else { " (fails)" }
}

/// The files that count, with their contents, and the folders.
fn snapshot(dir: &Path) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let ignored = fs::read_to_string(dir.join(".gitignore")).is_ok_and(|t| t == "x\n");
    let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::new());
    let mut ahead = vec![String::new()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(dir.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{folder}{name}");
            if (name == "x" && ignored) || path == "witness" {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                ahead.push(format!("{path}/"));
                folders.insert(path);
            } else if kind.is_file() {
                files.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    (files, folders)
}

#[rstest]
#[tokio::test]
async fn nothing_is_missed(#[values(1, 2, 3, 4, 5, 6, 7, 8)] seed: u64) {
    play(seed, 60, options()).await;
}

#[rstest]
#[tokio::test]
async fn polling_misses_nothing_either(#[values(1, 2, 3)] seed: u64) {
    play(seed, 8, polling::polling()).await;
}

/// What is told of what has happened until now. One round of polling may look at the
/// witness last and at all else before it changed.
async fn all_told(watched: &mut Watched, polling: bool) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for _ in 0..=usize::from(polling) {
        let heard = watched.heard().await;
        assert!(!heard.rescan);
        told.extend(heard.of("all").into_iter().map(str::to_owned));
    }
    told
}

async fn play(seed: u64, rounds: usize, options: Options) {
    let polling = options.always_poll;
    let mut rng = StdRng::seed_from_u64(seed);
    let outside = tempfile::tempdir().unwrap();
    let mut watched = Watched::new(|_| {}, vec![input("all", ".")], options).await;
    let (mut before, _) = snapshot(watched.dir.path());
    for round in 0..rounds {
        let acts: Vec<String> = (0..rng.random_range(1..12))
            .map(|_| act(&mut rng, watched.dir.path(), outside.path(), round))
            .collect();
        let context = format!("seed {seed}, round {round}, {acts:#?}");
        let told = all_told(&mut watched, polling).await;
        let (after, folders) = snapshot(watched.dir.path());
        let rules = told.contains(".gitignore");
        for path in before.keys().chain(after.keys()) {
            // What begins or ends to count is told of by the rules.
            let same = before.get(path) == after.get(path);
            let itself = Path::new(path)
                .ancestors()
                .any(|p| told.contains(p.to_str().unwrap()));
            let was = (before.get(path), after.get(path));
            assert!(
                same || itself || rules,
                "{path} {was:?} of {told:?}: {context}"
            );
        }
        // Every folder is watched, by its own name.
        let probes: Vec<String> = folders.iter().map(|f| format!("{f}/probe")).collect();
        for probe in &probes {
            watched.write(probe, "1");
        }
        let linked = LINKS.iter().any(|l| watched.path(l).is_symlink());
        fs::write(outside.path().join("probe"), round.to_string()).unwrap();
        let told = all_told(&mut watched, polling).await;
        for probe in &probes {
            let found = told.contains(probe);
            assert!(found, "{probe} of {told:?}: {context}");
        }
        let reached = LINKS.iter().any(|l| told.contains(&format!("{l}/probe")));
        assert_eq!(linked, reached, "{told:?}: {context}");
        for probe in &probes {
            fs::remove_file(watched.path(probe)).unwrap();
        }
        all_told(&mut watched, polling).await;
        before = snapshot(watched.dir.path()).0;
    }
}
