//! `[gate]` of `devenv.toml`.

use std::fs;

use devenv_model::{LoadOptions, Topology};
use rstest::rstest;

const KEY: &str = "devenv-ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[rstest]
#[case::not_set("", None, None)]
#[case::empty("[gate]\ntrusted_keys = []\n", None, Some(vec![]))]
#[case::one("[gate]\ntrusted_keys = [\"KEY\"]\n", None, Some(vec![KEY]))]
#[case::of_a_profile(
    "[profile.strict.gate]\ntrusted_keys = [\"KEY\"]\n",
    Some("strict"),
    Some(vec![KEY])
)]
#[case::of_another_profile("[profile.strict.gate]\ntrusted_keys = [\"KEY\"]\n", None, None)]
fn trusted_keys(
    #[case] section: &str,
    #[case] profile: Option<&str>,
    #[case] want: Option<Vec<&str>>,
) {
    let project = tempfile::tempdir().unwrap();
    let config = format!(
        "[project]\nmanifests = [\"k8s\"]\n{}",
        section.replace("KEY", KEY)
    );
    fs::write(project.path().join("devenv.toml"), config).unwrap();
    fs::create_dir(project.path().join("k8s")).unwrap();
    fs::write(
        project.path().join("k8s/map.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n",
    )
    .unwrap();
    let options = LoadOptions {
        profile: profile.map(str::to_owned),
        ..LoadOptions::default()
    };
    let (topology, warnings) = Topology::load(project.path(), &options)
        .into_result()
        .unwrap_or_else(|e| panic!("{:?}", e.problems));
    assert!(warnings.is_empty(), "{warnings:?}");
    let keys = topology.gate().trusted_keys.as_ref();
    assert_eq!(keys.map(|k| k.iter().map(String::as_str).collect()), want);
}
