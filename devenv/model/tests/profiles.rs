//! Profiles of `devenv.toml`, and what a load says it depended on.

use std::fs;
use std::path::{Path, PathBuf};

use devenv_model::{Command, LoadOptions, Loaded, Reload, Topology};
use rstest::rstest;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: api1}
spec:
  selector: {matchLabels: {app: api1}}
  template:
    metadata: {labels: {app: api1}}
    spec: {containers: [{name: api1, image: api1}]}
";

const BASE: &str = "\
[project]
name = \"p\"
manifests = [\"k8s\"]

[cloudsql]
user = \"u\"
also_at = [\"34.66.1.2\"]

[image.api1]
source = \"rust\"
build = \"cargo build\"
run = [\"target/api1\"]
watch = [\"rust\", \"Cargo.toml\"]
env = { A = \"1\", B = \"2\" }
";

struct Project(tempfile::TempDir);

impl Project {
    fn new(config: &str) -> Self {
        let project = Project(tempfile::tempdir().unwrap());
        project.write("devenv.toml", config);
        project.write("k8s/api1.yaml", DEPLOYMENT);
        project.write(
            "k8s/cloudsql.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: cloudsql}\nspec: {ports: [{port: 3306}]}\n",
        );
        project.write("Cargo.toml", "");
        project.write("rust/main.rs", "");
        project.write("python/main.py", "");
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn load(&self, profile: Option<&str>) -> Loaded {
        let options = LoadOptions {
            profile: profile.map(str::to_owned),
            ..LoadOptions::default()
        };
        Topology::load(self.0.path(), &options)
    }

    #[track_caller]
    fn valid(&self, profile: Option<&str>) -> Topology {
        let loaded = self.load(profile);
        let (topology, warnings) = loaded.into_result().unwrap_or_else(|e| {
            panic!("{:#?}", messages(&e.problems));
        });
        assert!(warnings.is_empty(), "{:#?}", messages(&warnings));
        topology
    }
}

fn messages(problems: &[devenv_model::Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_profile_is_laid_over_key_by_key() {
    let config = format!(
        "{BASE}\n\
         [profile.fast.image.api1]\n\
         reload = \"manual\"\n\
         env = {{ B = \"3\", C = \"4\" }}\n\
         [profile.fast.cloudsql]\n\
         user = \"v\"\n"
    );
    let project = Project::new(&config);
    let base = project.valid(None);
    assert_eq!(base.profile(), None);
    assert_eq!(base.cloud_sql().unwrap().user, "u");
    assert_eq!(base.images()["api1"].reload, Reload::Build);
    let fast = project.valid(Some("fast"));
    assert_eq!(fast.profile(), Some("fast"));
    let sql = fast.cloud_sql().unwrap();
    assert_eq!(sql.user, "v");
    assert_eq!(sql.also_at, [std::net::Ipv4Addr::new(34, 66, 1, 2)]);
    let api1 = &fast.images()["api1"];
    assert_eq!(api1.reload, Reload::Manual);
    assert_eq!(api1.run, Command::Argv(vec!["target/api1".into()]));
    let env: Vec<_> = api1.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=1", "B=3", "C=4"]);
    assert_eq!(api1.origin.to_string(), "devenv.toml:9:8");
}

#[test]
fn an_image_with_a_source_of_its_own_inherits_nothing() {
    let config = format!(
        "{BASE}\n\
         [profile.seed.image.api1]\n\
         source = \"python\"\n\
         run = \"python3 main.py\"\n"
    );
    let project = Project::new(&config);
    let seed = project.valid(Some("seed"));
    let api1 = &seed.images()["api1"];
    assert_eq!(api1.build, None);
    assert_eq!(api1.reload, Reload::Restart);
    assert_eq!(api1.watch, [project.root().join("python")]);
    assert!(api1.env.is_empty());
    assert_eq!(api1.origin.to_string(), "devenv.toml:16:21");
}

#[test]
fn a_profile_may_have_other_manifests_and_leave_images_out() {
    let config = format!(
        "{BASE}\n\
         [image.other]\n\
         source = \"python\"\n\
         run = \"x\"\n\
         [profile.more.project]\n\
         manifests = [\"k8s/overlay\"]\n"
    );
    let project = Project::new(&config);
    project.write(
        "k8s/kustomization.yaml",
        "resources: [api1.yaml, cloudsql.yaml]\n",
    );
    project.write(
        "k8s/overlay/kustomization.yaml",
        "resources: [..]\nreplicas: [{name: api1, count: 3}]\n",
    );
    let more = project.valid(Some("more"));
    let api1 = more.of_kind("apps/v1", "Deployment").next().unwrap();
    assert_eq!(api1.value()["spec"]["replicas"], 3);
    // Without the profile, an image that nothing uses is most probably a mistake.
    let base = project.load(None);
    assert!(messages(&base.problems)[0].contains("no workload uses the image \"other\""));
}

#[rstest]
#[case::none_at_all("", "nope", &[
    "devenv.toml:1:1: error[config::unknown-profile]: devenv.toml has no profile \"nope\"",
    "there is none",
])]
#[case::another("[profile.seed.project]\nname = \"s\"\n", "sed", &[
    "devenv.toml:15:2: error[config::unknown-profile]: devenv.toml has no profile \"sed\"",
    "expected: \"seed\"",
    "did you mean \"seed\"?",
])]
#[case::position("[profile.seed.image.api1]\nrun = \"\"\n", "seed", &[
    "devenv.toml:16:7: error[config::illegal-value]: `image.api1.run` names no program",
])]
#[case::new_image("[profile.seed.image.api9]\nrun = \"x\"\n", "seed", &[
    "devenv.toml:15:21: error[config::missing-key]: `image.api9` has no `source`",
])]
#[case::other_types("[profile.seed]\nimage = 5\n", "seed", &[
    "devenv.toml:16:9: error[config::wrong-type]: `profile.seed.image` is the number 5",
])]
#[case::no_table("[profile]\nseed = 5\n", "seed", &[
    "devenv.toml:16:8: error[config::wrong-type]: `profile.seed` is the number 5",
])]
#[case::profile_is_no_table("[[profile]]\nseed = 5\n", "seed", &[
    "error[config::wrong-type]: `profile` is a list",
])]
fn what_is_wrong_with_a_profile_points_into_it(
    #[case] more: &str,
    #[case] profile: &str,
    #[case] want: &[&str],
) {
    let loaded = Project::new(&format!("{BASE}{more}")).load(Some(profile));
    let text = messages(&loaded.problems).join("\n");
    assert!(loaded.topology.is_none(), "{text}");
    for want in want {
        assert!(text.contains(want), "no {want:?} in\n{text}");
    }
}

#[test]
fn mistakes_of_profiles_that_were_not_asked_for_are_told() {
    let config = format!("{BASE}[profile.seed.image.api1]\nruns = \"x\"\nwatch = \"y\"\n");
    let loaded = Project::new(&config).load(None);
    let text = messages(&loaded.problems).join("\n");
    for want in [
        "devenv.toml:16:1: warning[config::unknown-key]: devenv.toml has no key `profile.seed.image.api1.runs`",
        "devenv.toml:17:9: error[config::wrong-type]: `profile.seed.image.api1.watch` is the string \"y\"",
    ] {
        assert!(text.contains(want), "no {want:?} in\n{text}");
    }
}

#[rstest]
#[case(
    "run = \"x\"",
    "`run` belongs in the section [profile.seed.image.NAME]"
)]
#[case(
    "also_at = []",
    "`also_at` belongs in the section [profile.seed.cloudsql]"
)]
fn a_key_in_the_wrong_section_of_a_profile(#[case] line: &str, #[case] want: &str) {
    let loaded = Project::new(&format!("{BASE}[profile.seed]\n{line}\n")).load(None);
    let text = messages(&loaded.problems).join("\n");
    assert!(text.contains(want), "{text}");
}

#[rstest]
#[case("127.0.0.1", "127.0.0.1 is the pod itself")]
#[case("10.244.3.4", "10.244.3.4 is in the range of the pods")]
#[case("10.96.0.10", "10.96.0.10 is in the range of the Services")]
#[case("0.0.0.0", "0.0.0.0 is no address to connect to")]
#[case("224.0.0.1", "224.0.0.1 is a multicast address")]
#[case(
    "255.255.255.255",
    "255.255.255.255 is reserved or the broadcast address"
)]
#[case("34.66.1", "\"34.66.1\" is no IPv4 address")]
#[case("34.66.1.2:3306", "\"34.66.1.2:3306\" is no IPv4 address")]
#[case("::1", "\"::1\" is no IPv4 address")]
fn addresses_that_cannot_lead_to_the_database(#[case] address: &str, #[case] want: &str) {
    let config = BASE.replace("34.66.1.2", address);
    let loaded = Project::new(&config).load(None);
    let text = messages(&loaded.problems).join("\n");
    let want =
        format!("devenv.toml:7:12: error[config::illegal-value]: `cloudsql.also_at[0]`: {want}");
    assert!(text.contains(&want), "{text}");
}

#[test]
fn the_project_says_what_it_was_read_from() {
    let project = Project::new(BASE);
    project.write(
        "k8s/kustomization.yaml",
        "resources: [api1.yaml, cloudsql.yaml]\n",
    );
    let topology = project.valid(None);
    let root = project.root();
    for path in [
        "devenv.toml",
        "k8s/kustomization.yaml",
        "k8s/api1.yaml",
        "k8s/cloudsql.yaml",
    ] {
        assert!(topology.inputs().contains(&root.join(path)), "{path}");
    }
    assert!(!topology.inputs().iter().any(|p| p.ends_with("main.rs")));
}

#[test]
fn so_does_one_that_could_not_be_loaded() {
    let project = Project::new(&BASE.replace("rust\"\nbuild", "later\"\nbuild"));
    project.write("k8s/api1.yaml", "{");
    let loaded = project.load(None);
    assert!(loaded.topology.is_none());
    let root = project.root();
    // The folder stands for the files that appear in it; what was missing, for itself.
    for path in ["devenv.toml", "k8s", "k8s/api1.yaml", "later"] {
        assert!(loaded.inputs.contains(&root.join(path)), "{path}");
    }
    let nothing = Topology::load(Path::new("/nonexistent"), &LoadOptions::default());
    assert_eq!(nothing.inputs, [Path::new("/nonexistent/devenv.toml")]);
}
