//! `[kind.nginx]` of `devenv.toml`.

use std::fs;

use devenv_model::{LoadOptions, Loaded, NginxManifest, Topology};
use rstest::rstest;

const DIGEST: &str = "2A3AE008C8786431115502644E77AB398FDEBFB721A5D1195ED3089CDE3299DF";

/// A project with this configuration beside its own, and a file `kind/nginx.yaml`.
fn load(section: &str, profile: Option<&str>) -> (tempfile::TempDir, Loaded) {
    let root = tempfile::tempdir().unwrap();
    let config = format!("[project]\nmanifests = [\"k8s\"]\n{section}");
    fs::write(root.path().join("devenv.toml"), config).unwrap();
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
    for folder in ["k8s", "kind"] {
        fs::create_dir(root.path().join(folder)).unwrap();
        fs::write(root.path().join(folder).join("nginx.yaml"), object).unwrap();
    }
    let options = LoadOptions {
        profile: profile.map(str::to_owned),
        ..LoadOptions::default()
    };
    let loaded = Topology::load(root.path(), &options);
    (root, loaded)
}

fn messages(loaded: &Loaded) -> String {
    let all: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    all.join("\n")
}

#[test]
fn without_the_section_it_is_what_devenv_knows() {
    let (_root, loaded) = load("", None);
    assert_eq!(loaded.topology.unwrap().nginx(), None);
}

#[test]
fn a_file_of_the_project() {
    let (root, loaded) = load("[kind.nginx]\nmanifest = \"kind/nginx.yaml\"\n", None);
    assert_eq!(messages(&loaded), "");
    let topology = loaded.topology.unwrap();
    let nginx = topology.nginx().unwrap();
    let file = root.path().canonicalize().unwrap().join("kind/nginx.yaml");
    assert_eq!(nginx.manifest, NginxManifest::File(file.clone()));
    assert_eq!(nginx.sha256, None);
    assert_eq!(nginx.origin.to_string(), "devenv.toml:3:7");
    assert!(topology.inputs().contains(&file));
}

#[test]
fn a_url_and_what_it_must_be_also_from_a_profile() {
    let section = format!(
        "[profile.office.kind.nginx]\nmanifest = \"https://mirror.example/n.yaml\"\n\
         sha256 = \"{DIGEST}\"\n"
    );
    let (_root, loaded) = load(&section, Some("office"));
    assert_eq!(messages(&loaded), "");
    let topology = loaded.topology.unwrap();
    let nginx = topology.nginx().unwrap();
    let url = "https://mirror.example/n.yaml".to_owned();
    assert_eq!(nginx.manifest, NginxManifest::Url(url));
    assert_eq!(nginx.sha256, Some(DIGEST.to_lowercase()));
    let (_root, loaded) = load(&section, None);
    assert_eq!(loaded.topology.unwrap().nginx(), None);
}

#[rstest]
#[case::nothing("", &["devenv.toml:3:7", "has no `manifest`"])]
#[case::not_encrypted(
    "manifest = \"http://mirror.example/n.yaml\"",
    &["devenv.toml:4:12", "an https URL, or the path of a file of the project"]
)]
#[case::no_host("manifest = \"https:///n.yaml\"", &["devenv.toml:4:12"])]
#[case::unchecked(
    "manifest = \"https://mirror.example/n.yaml\"",
    &["`kind.nginx.sha256` is missing", "curl -fsSL https://mirror.example/n.yaml | sha256sum"]
)]
#[case::no_digest(
    "manifest = \"kind/nginx.yaml\"\nsha256 = \"2a3ae0\"",
    &["devenv.toml:5:10", "64 hexadecimal digits"]
)]
#[case::nowhere("manifest = \"kind/ngins.yaml\"", &["devenv.toml:4:12", "kind/ngins.yaml does not exist"])]
#[case::a_folder("manifest = \"kind\"", &["devenv.toml:4:12", "kind is no regular file"])]
#[case::outside("manifest = \"../n.yaml\"", &["devenv.toml:4:12", "lies outside the project"])]
#[case::wrong_type("manifest = 5", &["devenv.toml:4:12", "`kind.nginx.manifest` is the number 5"])]
fn what_is_wrong_is_said_at_its_place(#[case] keys: &str, #[case] said: &[&str]) {
    let (_root, loaded) = load(&format!("[kind.nginx]\n{keys}\n"), None);
    assert!(loaded.topology.is_none());
    let text = messages(&loaded);
    assert_eq!(text.matches("error[").count(), 1, "{text}");
    for part in said {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[rstest]
#[case(
    "[kind.nginx]\nmanifest = \"kind/nginx.yaml\"\nsha265 = \"\"\n",
    "did you mean \"sha256\"?"
)]
#[case(
    "[kind.ngnix]\nmanifest = \"kind/nginx.yaml\"\n",
    "did you mean \"nginx\"?"
)]
#[case(
    "[nginx]\nmanifest = \"kind/nginx.yaml\"\n",
    "`nginx` belongs in the section [kind]"
)]
fn what_is_mistyped_is_told(#[case] section: &str, #[case] help: &str) {
    let (_root, loaded) = load(section, None);
    let text = messages(&loaded);
    assert!(text.contains(help), "{text}");
    assert!(loaded.topology.is_some(), "{text}");
}
