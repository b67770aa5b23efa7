//! The frontend's page: built when what goes into it changed, and only then.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// Made by installing and building; never part of what goes in.
const MADE: &[&str] = &["node_modules", "dist", ".vite", ".test-build"];

/// The page's folder, when the checkout has one.
pub fn folder(root: &Path) -> Option<PathBuf> {
    let web = root.join("services/frontend/web");
    web.join("package.json").is_file().then_some(web)
}

/// A stamp beside the built page that says from which inputs it was built.
pub struct Stamp {
    file: PathBuf,
    now: String,
}

impl Stamp {
    /// Reads the inputs' names and contents.
    pub fn take(web: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        collect(web, &mut files)?;
        files.sort();
        let mut hasher = DefaultHasher::new();
        for file in files {
            let name = file.strip_prefix(web).unwrap_or(&file);
            hasher.write(name.as_os_str().as_encoded_bytes());
            hasher.write_u8(0);
            let contents = fs::read(&file)?;
            hasher.write_usize(contents.len());
            hasher.write(&contents);
        }
        Ok(Self {
            // In node_modules, so that neither git nor the built page sees it.
            file: web.join("node_modules/.page-inputs"),
            now: format!("{:016x}", hasher.finish()),
        })
    }

    /// Whether the page that lies there was built from these inputs.
    pub fn is_fresh(&self, web: &Path) -> bool {
        web.join("dist/index.html").is_file()
            && fs::read_to_string(&self.file).is_ok_and(|then| then == self.now)
    }

    /// To be called after a build that went well.
    pub fn keep(&self) -> io::Result<()> {
        fs::write(&self.file, &self.now)
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !MADE.iter().any(|made| entry.file_name() == *made) {
                collect(&path, into)?;
            }
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_input_makes_the_page_stale_and_a_made_file_does_not() {
        let web = std::env::temp_dir().join(format!("xtask-page-{}", std::process::id()));
        for made in ["src", "node_modules", "dist"] {
            fs::create_dir_all(web.join(made)).unwrap();
        }
        fs::write(web.join("src/main.ts"), "one").unwrap();
        fs::write(web.join("dist/index.html"), "built").unwrap();
        let first = Stamp::take(&web).unwrap();
        assert!(!first.is_fresh(&web), "nothing was kept yet");
        first.keep().unwrap();
        fs::write(web.join("dist/more.js"), "made").unwrap();
        assert!(Stamp::take(&web).unwrap().is_fresh(&web));
        fs::write(web.join("src/main.ts"), "two").unwrap();
        assert!(!Stamp::take(&web).unwrap().is_fresh(&web));
        fs::remove_dir_all(&web).unwrap();
    }
}
