//! Another version of the project's tree, in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use devenv_engine::state::RunGuard;
use tokio::process::Command;

use super::environments::clean_dead;
use crate::{error::CliError, project::Project};

/// The files of a commit. They lie in the folder of a run, so that they go when this is
/// dropped, or, after a SIGKILL, with the next run.
#[derive(Debug)]
pub struct Checkout {
    /// The project in it.
    pub project: Project,
    /// The commit, abbreviated.
    pub commit: String,
    _held: RunGuard,
}

impl Checkout {
    /// The files of what `wanted` names: a branch, a tag, a commit. `id` is a run's that
    /// is nobody's yet.
    ///
    /// It is a repository of its own that borrows the objects, so nothing is written into
    /// the project's (a worktree would be noted there), no hook runs, and whoever looks
    /// for the repository's root, git or a build, finds this one.
    ///
    /// # Errors
    /// If there is no such commit, if it has no such project, and what git says.
    pub async fn make(project: &Project, wanted: &str, id: &str) -> Result<Self, CliError> {
        let root = &project.root;
        let name = format!("{wanted}^{{commit}}");
        let commit = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &name,
        ];
        let commit = git(root, &commit).await?.ok_or_else(|| {
            let is_folder = root.join(wanted).is_dir();
            CliError::NoCommit {
                wanted: wanted.to_owned(),
                help: is_folder
                    .then(|| format!("a folder is written with a dot or slash first: ./{wanted}")),
            }
        })?;
        // Some versions of git tell `--end-of-options` back before the answer.
        let commit = commit.lines().last().unwrap_or_default().trim().to_owned();
        let inside = ask(root, &["rev-parse", "--show-prefix"]).await?;
        let short = ask(root, &["rev-parse", "--short", &commit]).await?;
        let objects = [
            "rev-parse",
            "--path-format=absolute",
            "--git-path",
            "objects",
        ];
        let objects = ask(root, &objects).await?;

        clean_dead(&project.state).await;
        let held = project.state.begin_run(id)?;
        let tree = held.state().path().join("tree");
        let write = |source| CliError::Io {
            what: format!("write {}", tree.display()),
            source,
        };
        fs::create_dir(&tree).map_err(write)?;
        ask(&tree, &["init", "--quiet", "--template="]).await?;
        let info = tree.join(".git/objects/info");
        fs::create_dir_all(&info).map_err(write)?;
        fs::write(info.join("alternates"), format!("{objects}\n")).map_err(write)?;
        ask(&tree, &["checkout", "--quiet", "--detach", &commit]).await?;
        // What root has made is the owner's, as whom builds and pods run.
        held.state().create()?;
        let there = Project::find(Some(&tree.join(&inside)), None);
        match there {
            // What is found further up is this project itself.
            Ok(there) if there.root.starts_with(&tree) => Ok(Self {
                project: there,
                commit: short,
                _held: held,
            }),
            _ => Err(CliError::NoProjectIn(format!("{wanted} ({short})"))),
        }
    }
}

/// What git answers.
async fn ask(at: &Path, words: &[&str]) -> Result<String, CliError> {
    match git(at, words).await? {
        Some(said) => Ok(said),
        None => Err(CliError::Git {
            words: words.join(" "),
            said: "nothing".to_owned(),
        }),
    }
}

/// What git answers; nothing if it says no and nothing else.
async fn git(at: &Path, words: &[&str]) -> Result<Option<String>, CliError> {
    let mut command = Command::new("git");
    // A repository that belongs to somebody else (under sudo) is read all the same, and
    // nothing of the user's configuration runs.
    for setting in [
        "safe.directory=*",
        "core.fsmonitor=false",
        "core.hooksPath=/dev/null",
        "advice.detachedHead=false",
    ] {
        command.args(["-c", setting]);
    }
    command
        .args(words)
        .current_dir(at)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_OBJECT_DIRECTORY")
        .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = command.output().await.map_err(|source| CliError::Io {
        what: "run git".to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    if out.status.success() {
        let answer = String::from_utf8_lossy(&out.stdout);
        return Ok(Some(answer.trim_end_matches('\n').to_owned()));
    }
    if said.is_empty() {
        return Ok(None);
    }
    Err(CliError::Git {
        words: words.join(" "),
        said,
    })
}

/// What a tree is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Other {
    /// A branch, a tag, a commit.
    Commit(String),
    /// Another checkout.
    Folder(PathBuf),
}

impl std::str::FromStr for Other {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.chars().next() {
            None => Err("a branch, tag or commit, or another checkout's folder".to_owned()),
            Some('.' | '/') => Ok(Self::Folder(PathBuf::from(text))),
            // git would take it for an option, also where it can be told otherwise.
            Some('-') => Err("no branch, tag or commit begins with a dash".to_owned()),
            Some(_) => Ok(Self::Commit(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("main", Some(Other::Commit("main".into())))]
    #[case("HEAD~2", Some(Other::Commit("HEAD~2".into())))]
    #[case("../other", Some(Other::Folder("../other".into())))]
    #[case(".", Some(Other::Folder(".".into())))]
    #[case("/w/x", Some(Other::Folder("/w/x".into())))]
    #[case("", None)]
    #[case("--upload-pack=x", None)]
    fn what_is_meant(#[case] text: &str, #[case] want: Option<Other>) {
        assert_eq!(text.parse().ok(), want);
    }

    async fn commit(at: &Path, text: &str) -> String {
        fs::write(at.join("a"), text).unwrap();
        let who = ["-c", "user.name=n", "-c", "user.email=e"];
        ask(at, &["add", "-A"]).await.unwrap();
        ask(at, &[&who[..], &["commit", "-qm", text]].concat())
            .await
            .unwrap();
        ask(at, &["rev-parse", "HEAD"]).await.unwrap()
    }

    #[tokio::test]
    async fn a_commit_lies_in_a_folder_that_goes_with_it() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("sub");
        fs::create_dir(&root).unwrap();
        ask(top.path(), &["init", "-q", "-b", "main"])
            .await
            .unwrap();
        let empty = commit(top.path(), "0").await;
        fs::write(root.join("devenv.toml"), "").unwrap();
        let first = commit(top.path(), "1").await;
        commit(top.path(), "2").await;
        let project = Project::find(Some(&root), None).unwrap();
        let checkout = Checkout::make(&project, "HEAD~1", "x").await.unwrap();
        let there = &checkout.project.root;
        assert!(first.starts_with(&checkout.commit));
        assert_eq!(fs::read_to_string(there.join("../a")).unwrap(), "1");
        assert_eq!(
            ask(there, &["rev-parse", "HEAD"]).await.unwrap(),
            first,
            "it is a repository"
        );
        assert!(there.starts_with(project.state.path()));
        let worktrees = ask(top.path(), &["worktree", "list"]).await.unwrap();
        assert_eq!(worktrees.lines().count(), 1, "the project's knows nothing");
        let there = there.clone();
        drop(checkout);
        assert!(!there.exists());

        let made = Checkout::make(&project, &empty, "y").await;
        assert!(matches!(made, Err(CliError::NoProjectIn(_))), "{made:?}");
        let made = Checkout::make(&project, "sub", "z").await;
        assert!(
            matches!(made, Err(CliError::NoCommit { help: None, .. })),
            "{made:?}"
        );
        fs::create_dir(root.join("nosuch")).unwrap();
        let made = Checkout::make(&project, "nosuch", "z").await;
        assert!(
            matches!(made, Err(CliError::NoCommit { help: Some(_), .. })),
            "{made:?}"
        );
        assert!(project.state.runs().is_empty());
    }
}
