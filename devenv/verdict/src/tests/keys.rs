//! Keys: made once, kept private.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    thread,
};

use rstest::rstest;

use crate::{KeyError, PublicKey, SigningKey};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn made_on_first_use_and_the_same_ever_after() {
    let home = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let folder = home.path().join("a/devenv");
    let key = SigningKey::in_folder(&folder, project.path()).unwrap();
    assert_eq!((mode(key.path()), mode(&folder)), (0o600, 0o700));
    let again = SigningKey::in_folder(&folder, project.path()).unwrap();
    assert_eq!(again.public(), key.public());
    let text = key.public().to_string();
    assert_eq!(text.parse::<PublicKey>().unwrap(), key.public());
    assert!(
        text.starts_with("devenv-ed25519:") && text.len() == 59,
        "{text}"
    );
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    let secret = fs::read_to_string(key.path()).unwrap();
    assert!(!format!("{key:?}").contains(secret.trim()));
}

#[test]
fn two_that_make_it_at_once_have_the_same() {
    let home = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let keys: Vec<PublicKey> = thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| SigningKey::in_folder(&home.path().join("d"), project.path())))
            .collect();
        makers
            .into_iter()
            .map(|m| m.join().unwrap().unwrap().public())
            .collect()
    });
    assert!(keys.iter().all(|k| *k == keys[0]));
}

#[rstest]
fn one_that_others_can_use_is_refused(#[values(0o644, 0o640, 0o620, 0o604, 0o610)] open: u32) {
    let home = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let key = SigningKey::in_folder(home.path(), project.path()).unwrap();
    fs::set_permissions(key.path(), fs::Permissions::from_mode(open)).unwrap();
    let error = SigningKey::in_folder(home.path(), project.path()).unwrap_err();
    let command = format!("`chmod 600 {}`", key.path().display());
    assert!(error.to_string().contains(&command), "{error}");
    assert!(
        error.to_string().contains(&format!("{open:04o}")),
        "{error}"
    );
}

#[rstest]
#[case::in_it("project/.config/devenv")]
#[case::around_it("home/../project/keys")]
#[case::through_a_link("link/keys")]
fn one_in_the_project_is_refused(#[case] folder: &str) {
    let world = tempfile::tempdir().unwrap();
    let project = world.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::create_dir(world.path().join("home")).unwrap();
    symlink(&project, world.path().join("link")).unwrap();
    let error = SigningKey::in_folder(&world.path().join(folder), &project).unwrap_err();
    assert!(matches!(error, KeyError::InProject { .. }), "{error}");
    assert_eq!(
        fs::read_dir(&project).unwrap().count(),
        0,
        "nothing is made"
    );
}

#[rstest]
#[case::empty(b"")]
#[case::public(b"devenv-ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")]
#[case::short(b"devenv-ed25519-secret:AAAA\n")]
#[case::no_base64(b"devenv-ed25519-secret:!!!\n")]
#[case::no_text(b"\xff\xfe")]
#[case::long(&[b'a'; 5000])]
fn one_that_is_none_is_named_and_stays(#[case] contents: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    let project = tempfile::tempdir().unwrap();
    let path = home.path().join("signing-key");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = SigningKey::in_folder(home.path(), project.path()).unwrap_err();
    assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("signing-key"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), contents);
}

#[rstest]
#[case::nothing("")]
#[case::no_prefix("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]
#[case::short("devenv-ed25519:AAAA")]
#[case::no_point("devenv-ed25519:AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]
fn no_public_key(#[case] text: &str) {
    text.parse::<PublicKey>().unwrap_err();
}
