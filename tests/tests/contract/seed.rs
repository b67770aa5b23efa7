//! The seed services' own tests and linters, in their own languages.

use devenv_tests::contract::program::Unready;
use devenv_tests::project::{checkout, output_of};
use devenv_tests::{environments, find_tool};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

type Checking = Pin<Box<dyn Future<Output = Result<(), Unready>>>>;

type Check = (&'static str, fn() -> Checking);

pub const CHECKS: &[Check] = &[
    ("python_tests", || Box::pin(python(&["-m", "pytest", "-q"]))),
    ("python_lint", || Box::pin(python(&["-m", "ruff", "check"]))),
    ("python_format", || {
        Box::pin(python(&["-m", "ruff", "format", "--check"]))
    }),
    ("api2_tests", || Box::pin(node("api2"))),
    ("api3_tests", || Box::pin(node("api3"))),
    ("what_both_node_services_have_is_the_same", || {
        Box::pin(what_both_node_services_have_is_the_same())
    }),
];

const LIMIT: Duration = Duration::from_secs(300);

fn folder(name: &str) -> PathBuf {
    checkout().join("services/seed").join(name)
}

async fn python(words: &[&str]) -> Result<(), Unready> {
    find_tool("python3").ok_or(Unready::Missing("python3"))?;
    let folder = folder("api1");
    let python = environments::python(&folder.join("requirements-dev.txt"))
        .await
        .map_err(Unready::Failed)?;
    // These tools look at the folder that they are run in.
    let here = format!("cd '{}' && exec \"$0\" \"$@\"", folder.display());
    let python = python.to_string_lossy();
    let words = [&["-c", here.as_str(), python.as_ref()], words].concat();
    let said = output_of(Path::new("sh"), &words, &BTreeMap::new(), LIMIT).await;
    said.map(drop).map_err(Unready::Failed)
}

async fn node(name: &str) -> Result<(), Unready> {
    find_tool("node").ok_or(Unready::Missing("node"))?;
    find_tool("npm").ok_or(Unready::Missing("npm"))?;
    let folder = folder(name);
    environments::node(&folder).await.map_err(Unready::Failed)?;
    let prefix = folder.to_string_lossy();
    let words = ["--prefix", &prefix, "test"];
    let said = output_of(Path::new("npm"), &words, &BTreeMap::new(), LIMIT).await;
    let said = said.map_err(Unready::Failed)?;
    // A runner that finds nothing to run is content as well.
    if said.lines().any(|line| line.trim_end() == "# pass 0") || !said.contains("pass ") {
        return Err(Unready::Failed(format!("{name}: no test was run\n{said}")));
    }
    Ok(())
}

/// Each is built from its own folder, so what they share is there twice.
async fn what_both_node_services_have_is_the_same() -> Result<(), Unready> {
    let [api2, api3] = ["api2", "api3"].map(|name| files(&folder(name).join("src/service")));
    let names: BTreeSet<_> = api2.keys().chain(api3.keys()).collect();
    for name in names {
        if api2.get(name) != api3.get(name) {
            return Err(Unready::Failed(format!(
                "src/service/{name} is not the same in api2 and api3"
            )));
        }
    }
    Ok(())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("a readable file"))
        })
        .collect()
}
