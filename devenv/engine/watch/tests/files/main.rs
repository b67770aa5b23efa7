//! A watcher on real folders.
//!
//! Whether something is *not* told of is seen without waiting: a last file, the
//! witness, is written, and everything that is told up to it is collected.

mod confined;
mod editors;
mod folders;
mod ignored;
mod links;
mod polling;
mod random;
mod storms;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use devenv_watch::{Changes, Input, Options, Watcher};

/// Long enough for any machine; nothing waits so long unless it has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// With hardly any quiet, which makes tests fast and cuts bursts in unexpected places;
/// but what has to be waited for is, on a slow machine too.
fn options() -> Options {
    Options {
        quiet: Duration::from_millis(1),
        max: DEADLINE / 4,
        ..Options::default()
    }
}

/// A folder, and a watcher on parts of it.
struct Watched {
    dir: tempfile::TempDir,
    watcher: Watcher<&'static str>,
    witnesses: usize,
}

/// What was told, with paths relative to the folder.
#[derive(Debug, Default)]
struct Heard {
    owners: BTreeMap<&'static str, BTreeSet<String>>,
    bursts: Vec<Changes<&'static str>>,
    rescan: bool,
}

impl Heard {
    fn of(&self, owner: &str) -> Vec<&str> {
        let paths = self.owners.get(owner);
        paths.into_iter().flatten().map(String::as_str).collect()
    }
}

fn input(owner: &'static str, path: &str) -> Input<&'static str> {
    Input {
        owner,
        paths: vec![PathBuf::from(path)],
        ignore: Vec::new(),
        gitignore: true,
    }
}

impl Watched {
    /// `all` watches the whole folder.
    async fn all(prepare: impl FnOnce(&Path)) -> Self {
        Self::new(prepare, vec![input("all", ".")], options()).await
    }

    async fn new(
        prepare: impl FnOnce(&Path),
        mut inputs: Vec<Input<&'static str>>,
        options: Options,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        fs::create_dir(dir.path().join("witness")).unwrap();
        inputs.push(input("witness", "witness"));
        let watcher = Watcher::start(dir.path(), inputs, options).unwrap();
        watcher.ready().await;
        Self {
            dir,
            watcher,
            witnesses: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.dir.path()).unwrap_or(path);
        path.to_str().unwrap().to_owned()
    }

    async fn burst(&mut self) -> Changes<&'static str> {
        let next = tokio::time::timeout(DEADLINE, self.watcher.next()).await;
        next.expect("in time").expect("it goes on")
    }

    /// Everything that is told of what has happened until now.
    async fn heard(&mut self) -> Heard {
        self.witnesses += 1;
        let witness = format!("witness/{}", self.witnesses);
        self.write(&witness, "");
        let mut heard = Heard::default();
        loop {
            let burst = self.burst().await;
            heard.rescan |= burst.rescan;
            let mut done = false;
            for (owner, paths) in &burst.owners {
                let paths = paths.iter().map(|p| self.relative(p));
                for path in paths {
                    done |= path == witness;
                    if !path.contains("witness/") {
                        heard.owners.entry(*owner).or_default().insert(path);
                    }
                }
            }
            heard.bursts.push(burst);
            if done {
                return heard;
            }
        }
    }

    /// What `all` is told of what has happened until now.
    async fn all_heard(&mut self) -> Vec<String> {
        let heard = self.heard().await;
        assert!(!heard.rescan);
        heard.of("all").into_iter().map(str::to_owned).collect()
    }
}
