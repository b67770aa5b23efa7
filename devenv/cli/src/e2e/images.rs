//! Container images and their digests, for verdicts: those that a run's environments ran, and
//! those that are built now.

use std::collections::BTreeMap;

use devenv_model::Topology;
use devenv_platform::{ContainerEngine, ImageFact, Images, containers};
use devenv_verdict::{CoverageError, ImageDigests, Tree};

use crate::error::CliError;

/// What is known of images, as a look asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(pub Images);

impl ImageDigests for Facts {
    fn digest(&self, image: &str) -> Result<Option<String>, String> {
        match self.0.get(image) {
            Some(ImageFact::Digest(digest)) => Ok(Some(digest.clone())),
            Some(ImageFact::Unknown(why)) => Err(why.clone()),
            None => Ok(None),
        }
    }
}

/// The images that the environments of a run said that they ran: when each was ready, and when
/// its last suite had ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    first: Images,
    /// The same, but for what was otherwise later on.
    last: Images,
}

impl Ran {
    /// An environment said so.
    pub fn saw(&mut self, images: &Images) {
        for (name, fact) in images {
            let first = self.first.entry(name.clone());
            let first = first.or_insert_with(|| fact.clone());
            let is_known = |fact: &ImageFact| matches!(fact, ImageFact::Digest(_));
            if is_known(first) && !is_known(fact) {
                // Of one whose image nobody knows nothing is proven.
                first.clone_from(fact);
            }
            let last = self.last.entry(name.clone());
            let last = last.or_insert_with(|| fact.clone());
            if fact != first {
                last.clone_from(fact);
            }
        }
    }

    /// Two looks at the tree, raised to what ran: `before` to what did in the beginning,
    /// `after` to what did in the end.
    ///
    /// # Errors
    /// When it is not known of an image, or when there was no environment.
    pub fn of(&self, before: Tree, after: Tree) -> Result<(Tree, Tree), CliError> {
        if self.first.is_empty() && after.images().next().is_some() {
            return Err(CliError::Check(
                "no verdict: no environment came up, so nobody knows which images it would have \
                 run"
                .to_owned(),
            ));
        }
        let raised = |tree: Tree, images: &Images| tree.of_images(&Facts(images.clone()));
        let unknown = |e: CoverageError| CliError::Check(format!("no verdict: {e}"));
        let before = raised(before, &self.first).map_err(unknown)?;
        Ok((before, raised(after, &self.last).map_err(unknown)?))
    }
}

/// An image and its digest, as somebody gives them: `NAME=sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As a manifest, the Compose file or devenv.toml has it.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

impl std::str::FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=sha256:… with 64 hexadecimal digits".to_owned();
        let (name, digest) = text.rsplit_once('=').ok_or_else(expected)?;
        let digits = digest.strip_prefix("sha256:").ok_or_else(expected)?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if name.is_empty() || digits.len() != 64 || !digits.bytes().all(is_hex) {
            return Err(expected());
        }
        Ok(Self {
            name: name.to_owned(),
            digest: digest.to_owned(),
        })
    }
}

/// What the images are now that `tree` asks for: those of `given`, and for the others what
/// this machine's engine has. Nothing is built.
///
/// # Errors
/// When one was given that nobody asks for.
pub async fn now(tree: &Tree, topology: &Topology, given: &[Given]) -> Result<Facts, CliError> {
    let asked: Vec<&str> = tree.images().collect();
    let known = chosen(&asked, topology, given)?;
    let mut facts: Images = known
        .into_iter()
        .map(|(name, digest)| (name, ImageFact::Digest(digest)))
        .collect();
    let others: Vec<&str> = asked
        .into_iter()
        .filter(|name| !facts.contains_key(*name))
        .collect();
    if others.is_empty() {
        return Ok(Facts(facts));
    }
    let engine = ContainerEngine::connect().await.map_err(|e| e.to_string());
    for name in others {
        let fact = match &engine {
            Ok(engine) => look_up(engine, topology, name).await,
            Err(why) => ImageFact::Unknown(why.clone()),
        };
        let fact = match fact {
            ImageFact::Unknown(why) => {
                ImageFact::Unknown(format!("{why}; --image {name}=sha256:… says it"))
            }
            digest @ ImageFact::Digest(_) => digest,
        };
        facts.insert(name.to_owned(), fact);
    }
    Ok(Facts(facts))
}

/// What the engine has for an image of a manifest, or of the Compose file.
async fn look_up(engine: &ContainerEngine, topology: &Topology, name: &str) -> ImageFact {
    let Some(source) = topology.image_source(name) else {
        return engine.image(name).await;
    };
    let tag = containers::tag_of(&topology.project().name, &source.name);
    match engine.image(&tag).await {
        ImageFact::Unknown(why) => ImageFact::Unknown(format!(
            "{why}; `devenv up --runtime docker` and `devenv test e2e --runtime docker` build it"
        )),
        digest @ ImageFact::Digest(_) => digest,
    }
}

/// The digests that were given, by the names that are asked for: those of manifests, or of the
/// section of devenv.toml that builds the image.
fn chosen(
    asked: &[&str],
    topology: &Topology,
    given: &[Given],
) -> Result<BTreeMap<String, String>, CliError> {
    let mut chosen = BTreeMap::new();
    for Given { name, digest } in given {
        let source = |image: &str| topology.image_source(image).map(|s| s.name.as_str());
        let means = |image: &str| image == name || source(image) == Some(name.as_str());
        let before = chosen.len();
        let meant = asked.iter().filter(|image| means(image));
        chosen.extend(meant.map(|image| ((*image).to_owned(), digest.clone())));
        if chosen.len() == before {
            return Err(CliError::Usage(format!(
                "--image {name}: there is no such image, or it was given before; there are {}",
                asked.join(", ")
            )));
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use devenv_model::LoadOptions;
    use devenv_verdict::Look;
    use rstest::rstest;

    use super::*;

    fn digest(text: &str) -> ImageFact {
        ImageFact::Digest(text.to_owned())
    }

    fn unknown(text: &str) -> ImageFact {
        ImageFact::Unknown(text.to_owned())
    }

    /// A project with `[image.web]`, which its Deployment calls by another name.
    fn project() -> (tempfile::TempDir, Topology) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("web")).unwrap();
        fs::write(
            dir.path().join("devenv.toml"),
            "[project]\nname = 'p'\nmanifests = ['app.yaml']\n\
             [image.web]\nsource = 'web'\nrun = ['true']\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("app.yaml"),
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  \
             selector: {matchLabels: {app: web}}\n  template:\n    \
             metadata: {labels: {app: web}}\n    \
             spec: {containers: [{name: c, image: \"r.example/web:v1\"}]}\n",
        )
        .unwrap();
        let loaded = Topology::load(dir.path(), &LoadOptions::default());
        let topology = loaded.topology.unwrap_or_else(|| panic!("it is a project"));
        (dir, topology)
    }

    #[rstest]
    #[case::alike(&[digest("a"), digest("a")], Ok(("a", "a")))]
    #[case::reloaded(&[digest("a"), digest("b")], Ok(("a", "b")))]
    #[case::another_environment(&[digest("a"), digest("a"), digest("b"), digest("a")], Ok(("a", "b")))]
    #[case::unknown(&[unknown("why")], Err("why"))]
    #[case::unknown_later(&[digest("a"), unknown("why")], Err("why"))]
    #[case::unknown_first(&[unknown("why"), digest("a")], Err("why"))]
    #[case::no_environment(&[], Err("no environment came up"))]
    fn what_environments_say_is_what_ran(
        #[case] said: &[ImageFact],
        #[case] expected: Result<(&str, &str), &str>,
    ) {
        let (_dir, topology) = project();
        let tree = Look::new(&topology, "local").take().unwrap();
        let mut ran = Ran::default();
        for fact in said {
            ran.saw(&Images::from([(
                "r.example/web:v1".to_owned(),
                fact.clone(),
            )]));
        }
        let raised = ran.of(tree.clone(), tree.clone());
        match (raised, expected) {
            (Ok(raised), Ok((before, after))) => {
                let of = |text: &str| {
                    let facts = Images::from([("r.example/web:v1".to_owned(), digest(text))]);
                    tree.clone().of_images(&Facts(facts)).unwrap()
                };
                assert_eq!(raised, (of(before), of(after)));
            }
            (Err(e), Err(why)) => {
                let said = e.to_string();
                assert!(
                    said.starts_with("no verdict: ") && said.contains(why),
                    "{said}"
                );
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_of_which_nothing_was_said_is_named() {
        let (_dir, topology) = project();
        let tree = Look::new(&topology, "local").take().unwrap();
        let mut ran = Ran::default();
        ran.saw(&Images::from([("mysql:8.4".to_owned(), digest("a"))]));
        let error = ran.of(tree.clone(), tree).unwrap_err().to_string();
        assert!(error.contains("r.example/web:v1"), "{error}");
    }

    #[rstest]
    #[case::by_manifest(&["r.example/web:v1"], true)]
    #[case::by_section(&["web"], true)]
    #[case::twice(&["web", "r.example/web:v1"], false)]
    #[case::nobodys(&["other"], false)]
    #[tokio::test]
    async fn images_are_given_by_either_name(#[case] names: &[&str], #[case] fine: bool) {
        let (_dir, topology) = project();
        let tree = Look::new(&topology, "local").take().unwrap();
        let sha = format!("sha256:{}", "0a".repeat(32));
        let given = names.iter().map(|name| format!("{name}={sha}").parse());
        let given = given.collect::<Result<Vec<Given>, _>>().unwrap();
        match now(&tree, &topology, &given).await {
            Ok(facts) if fine => {
                let expected = Images::from([("r.example/web:v1".to_owned(), digest(&sha))]);
                assert_eq!(facts.0, expected);
            }
            Err(e) if !fine => assert!(e.to_string().contains("there are r.example/web:v1"), "{e}"),
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case("web")]
    #[case("web=latest")]
    #[case("web=sha256:12")]
    #[case("=sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")]
    #[case("web=sha256:0A0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")]
    fn what_is_no_digest_is_refused(#[case] text: &str) {
        let error = text.parse::<Given>().unwrap_err();
        assert!(error.contains("NAME=sha256:"), "{error}");
    }
}
