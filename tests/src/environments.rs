//! What programs in other languages need before they run: a Python environment, the
//! packages of a Node.js project.

use crate::project::{kept_folder, output_of};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(600);

/// The Python of an environment with what `requirements` lists, a file that may name
/// others beside it. It is made anew when one of them changed, with `uv` where there
/// is one.
///
/// # Errors
/// What could not be read, or what uv, venv or pip said.
pub async fn python(requirements: &Path) -> Result<PathBuf, String> {
    let key = requirements_key(requirements)?;
    let folder = kept_folder("python").join(&key);
    let python = folder.join("bin/python");
    let ready = folder.join("installed");
    if ready.is_file() {
        return Ok(python);
    }
    let none = BTreeMap::new();
    let run = async |program: &Path, words: &[&str]| {
        output_of(program, words, &none, INSTALL).await.map(drop)
    };
    let target = folder.to_string_lossy();
    let list = requirements.to_string_lossy();
    if let Some(uv) = crate::find_tool("uv") {
        let interpreter = python.to_string_lossy();
        run(&uv, &["venv", "--quiet", "--clear", &target]).await?;
        let install = ["pip", "install", "--quiet", "--python", &interpreter];
        run(&uv, &[&install[..], &["-r", &list]].concat()).await?;
    } else {
        let venv = ["-m", "venv", "--clear", &target];
        run(Path::new("python3"), &venv).await?;
        run(&python, &["-m", "pip", "install", "-q", "-r", &list]).await?;
    }
    fs::write(&ready, "").map_err(|error| format!("{}: {error}", ready.display()))?;
    Ok(python)
}

/// A hash of the file and of those that its `-r` lines name.
fn requirements_key(file: &Path) -> Result<String, String> {
    let mut hash = Sha256::new();
    let mut files = vec![file.to_path_buf()];
    while let Some(file) = files.pop() {
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        files.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("-r "))
                .map(|name| file.with_file_name(name.trim())),
        );
        hash.update(text);
    }
    Ok(hex::encode(&hash.finalize()[..8]))
}

/// Installs what a Node.js project's lock file says into its folder, unless that is
/// there already.
///
/// # Errors
/// What could not be read or written, or what npm said.
pub async fn node(folder: &Path) -> Result<(), String> {
    let lock = folder.join("package-lock.json");
    let lock = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let key = hex::encode(Sha256::digest(lock));
    // Goes with node_modules when somebody installs again.
    let ready = folder.join("node_modules/.installed-for");
    if fs::read_to_string(&ready).is_ok_and(|from| from == key) {
        return Ok(());
    }
    let prefix = folder.to_string_lossy();
    let words = ["ci", "--no-audit", "--no-fund", "--prefix", &prefix];
    output_of(Path::new("npm"), &words, &BTreeMap::new(), INSTALL).await?;
    fs::write(&ready, key).map_err(|error| format!("{}: {error}", ready.display()))
}
