//! How editors save.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Seek, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::*;
use rstest::rstest;

const ROUNDS: usize = 200;

/// Over the old contents: nano, VS Code, a shell's `>`.
fn in_place(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

/// Written in pieces, and synced.
fn in_pieces(file: &Path, text: &str) {
    let mut f = File::create(file).unwrap();
    for line in text.split_inclusive('\n') {
        f.write_all(line.as_bytes()).unwrap();
    }
    f.sync_all().unwrap();
}

/// Not truncated but overwritten, and cut at the end: Notepad++, `dd`.
fn overwrite(file: &Path, text: &str) {
    let mut f = OpenOptions::new().write(true).open(file).unwrap();
    f.write_all(text.as_bytes()).unwrap();
    let end = f.stream_position().unwrap();
    f.set_len(end).unwrap();
}

/// vim with `backupcopy=no` and a backup: probes the folder, moves the file away, and
/// writes it anew; its swap file is written all the time.
fn vim(file: &Path, text: &str) {
    let sibling = |name: &str| file.with_file_name(name);
    let name = file.file_name().unwrap().to_str().unwrap();
    fs::write(sibling(&format!(".{name}.swp")), text).unwrap();
    fs::write(sibling("4913"), "").unwrap();
    fs::remove_file(sibling("4913")).unwrap();
    let backup = sibling(&format!("{name}~"));
    fs::rename(file, &backup).unwrap();
    fs::write(file, text).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(backup).unwrap();
    fs::remove_file(sibling(&format!(".{name}.swp"))).unwrap();
}

/// JetBrains' safe write.
fn jetbrains(file: &Path, text: &str) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let temporary = file.with_file_name(format!("{name}___jb_tmp___"));
    let old = file.with_file_name(format!("{name}___jb_old___"));
    fs::write(&temporary, text).unwrap();
    fs::rename(file, &old).unwrap();
    fs::rename(&temporary, file).unwrap();
    fs::remove_file(&old).unwrap();
}

/// Written beside and renamed over: Helix, Zed, `sed -i`, Kate, npm. Their names are of
/// no pattern, and not told of because they come and go in one burst; here it has to be
/// one of a pattern, because the machine may pause in between.
fn rename_over(file: &Path, text: &str) {
    let temporary = file.with_file_name(".goutputstream-ABCDEF");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, file).unwrap();
}

/// Emacs: auto-save file, lock, backup by renaming.
fn emacs(file: &Path, text: &str) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let lock = file.with_file_name(format!(".#{name}"));
    std::os::unix::fs::symlink("me@host.4711:1", &lock).unwrap();
    let auto = file.with_file_name(format!("#{name}#"));
    fs::write(&auto, text).unwrap();
    fs::rename(file, file.with_file_name(format!("{name}~"))).unwrap();
    fs::write(file, text).unwrap();
    fs::remove_file(auto).unwrap();
    fs::remove_file(lock).unwrap();
}

/// Deleted and written again.
fn delete_and_create(file: &Path, text: &str) {
    fs::remove_file(file).unwrap();
    fs::write(file, text).unwrap();
}

/// The same contents once more.
fn touch(file: &Path, _: &str) {
    let f = OpenOptions::new().append(true).open(file).unwrap();
    f.set_modified(std::time::SystemTime::now()).unwrap();
}

fn chmod(file: &Path, _: &str) {
    let mode = fs::metadata(file).unwrap().permissions().mode();
    fs::set_permissions(file, Permissions::from_mode(mode ^ 0o100)).unwrap();
}

#[rstest]
#[case::in_place(in_place)]
#[case::in_pieces(in_pieces)]
#[case::overwrite(overwrite)]
#[case::vim(vim)]
#[case::jetbrains(jetbrains)]
#[case::rename_over(rename_over)]
#[case::emacs(emacs)]
#[case::delete_and_create(delete_and_create)]
#[case::touch(touch)]
#[case::chmod(chmod)]
#[tokio::test]
async fn every_save_is_told_of_and_nothing_else(#[case] save: fn(&Path, &str)) {
    let mut watched = Watched::new(
        |dir| {
            fs::create_dir(dir.join("src")).unwrap();
            fs::write(dir.join("src/main.rs"), "fn main() {}\n").unwrap();
            fs::write(dir.join("Cargo.toml"), "[package]\n").unwrap();
        },
        vec![input("src", "src"), input("manifest", "Cargo.toml")],
        options(),
    )
    .await;
    for round in 0..ROUNDS {
        let text = format!("fn main() {{}}\n// {round}\n").repeat(round % 7 + 1);
        let (file, owner, told) = match round % 2 {
            0 => ("src/main.rs", "src", ["src/main.rs"]),
            _ => ("Cargo.toml", "manifest", ["Cargo.toml"]),
        };
        save(&watched.path(file), &text);
        let heard = watched.heard().await;
        assert_eq!(heard.of(owner), told, "round {round}: {heard:?}");
        assert_eq!(heard.owners.len(), 1, "round {round}: {heard:?}");
        assert!(!heard.rescan);
    }
}

#[tokio::test]
async fn reading_is_no_change() {
    let mut watched = Watched::all(|dir| fs::write(dir.join("a"), "a").unwrap()).await;
    for _ in 0..ROUNDS {
        fs::read(watched.path("a")).unwrap();
        drop(
            OpenOptions::new()
                .read(true)
                .open(watched.path("a"))
                .unwrap(),
        );
        fs::read_dir(watched.dir.path()).unwrap().count();
        fs::metadata(watched.path("a")).unwrap();
    }
    assert_eq!(watched.all_heard().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_is_being_written_is_waited_for() {
    let mut watched = Watched::new(
        |dir| fs::write(dir.join("a"), "long contents").unwrap(),
        vec![input("all", "a")],
        // So that only the end of writing can be the reason.
        Options {
            max: DEADLINE * 10,
            ..options()
        },
    )
    .await;
    let mut f = File::create(watched.path("a")).unwrap();
    f.write_all(b"half").unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), watched.watcher.next()).await;
    assert!(early.is_err(), "{early:?}");
    drop(f);
    let burst = watched.burst().await;
    assert_eq!(burst.owners["all"].len(), 1);
}

#[tokio::test]
async fn the_time_of_the_save_is_told() {
    let mut watched = Watched::all(|_| {}).await;
    let before = std::time::SystemTime::now() - Duration::from_secs(1);
    watched.write("a", "a");
    let burst = watched.burst().await;
    let saved = burst.saved.unwrap();
    assert!(saved > before && saved < std::time::SystemTime::now() + Duration::from_secs(1));
    assert!(burst.detected.elapsed() < DEADLINE);
    // Moved into place with an old mtime: it was saved now all the same.
    fs::write(watched.path("witness/old"), "").unwrap();
    let file = File::options()
        .write(true)
        .open(watched.path("witness/old"))
        .unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    fs::rename(watched.path("witness/old"), watched.path("new")).unwrap();
    let heard = watched.heard().await;
    assert!(
        heard
            .bursts
            .iter()
            .any(|b| b.saved.is_some_and(|s| s >= saved))
    );
}
