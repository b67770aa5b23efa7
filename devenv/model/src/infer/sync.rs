//! Which saves need no build of the image: what a Dockerfile only copies lies in the image
//! as it lies here.

use super::context::Context;
use crate::dockerfile::{Copy, Image, Said};
use crate::topology::SyncPath;

/// What `image` copies from the build's context and no later instruction makes anything of.
pub(super) fn paths(image: &Image, context: &Context) -> Vec<SyncPath> {
    let mut found = Vec::new();
    for (n, copy) in image.copies.iter().enumerate() {
        let later = &image.copies[n + 1..];
        let plain = copy.value.plain && copy.value.from.is_none();
        if plain && !is_used(image, copy) && !later.iter().any(|c| overlap(&copy.value, &c.value)) {
            found.extend(pairs(&copy.value, context));
        }
    }
    found
}

/// Whether a command after it may have made something of what was copied. Compiled Python
/// goes by its source's time, so that what is newer is compiled anew.
fn is_used(image: &Image, copy: &Said<Copy>) -> bool {
    let runs = image.runs.iter();
    let mut after = runs.filter(|run| run.span.start > copy.span.start);
    after.any(|run| !run.value.contains("-m compileall"))
}

fn overlap(one: &Copy, other: &Copy) -> bool {
    let below = |a: &str, b: &str| {
        let rest = a.strip_prefix(b.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Files that are copied into one folder, one after the other, hide nothing of each other.
    if one.into && other.into && one.dest == other.dest && !one.is_whole() && !other.is_whole() {
        return one.sources.iter().any(|s| other.sources.contains(s));
    }
    below(&one.dest, &other.dest) || below(&other.dest, &one.dest)
}

fn pairs(copy: &Copy, context: &Context) -> Vec<SyncPath> {
    let mut pairs = Vec::new();
    for source in &copy.sources {
        if source.contains(['*', '?', '[', '$', '\\']) || source.contains("://") {
            return Vec::new();
        }
        let from = context.source(source);
        let to = if from.is_dir() || !copy.into {
            copy.dest.clone()
        } else {
            let name = from.file_name().and_then(|n| n.to_str());
            let Some(name) = name else { return Vec::new() };
            format!("{}/{name}", copy.dest.trim_end_matches('/'))
        };
        pairs.push(SyncPath { from, to });
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;
    use crate::dockerfile;

    #[rstest]
    #[case::a_folder("WORKDIR /app\nCOPY src src\n", &["src /app/src"])]
    #[case::contents("COPY src/ /app\n", &["src /app"])]
    #[case::a_file("COPY main.py /app/\nCOPY src /app/src\n", &["src /app/src"])]
    #[case::files("WORKDIR /app\nCOPY main.py conf.yaml ./\n", &["main.py /app/main.py", "conf.yaml /app/conf.yaml"])]
    #[case::a_file_of_another_name("COPY main.py /run.py\n", &["main.py /run.py"])]
    #[case::everything("WORKDIR /app\nCOPY conf.yaml .\nRUN pip install x\nCOPY . .\n", &[" /app"])]
    #[case::only_what_is_copied_last("WORKDIR /app\nCOPY conf.yaml .\nRUN pip install x\nCOPY src src\n", &["src /app/src"])]
    #[case::compiled_python("COPY src /app\nRUN python -m compileall -q /app\n", &["src /app"])]
    #[case::used("COPY src /app\nRUN make\n", &[])]
    #[case::another_owner("COPY --chown=node src /app\n", &[])]
    #[case::a_link("COPY --link src /app\n", &["src /app"])]
    #[case::of_another_stage("FROM x AS y\nRUN make\nFROM x\nCOPY --from=y /src /app\nCOPY src /srv\n", &["src /srv"])]
    #[case::of_a_stage_below("FROM x AS y\nCOPY src /srv\nFROM y\nENV A=b\n", &["src /srv"])]
    #[case::hidden("COPY src /app\nCOPY --from=x /dist /app/dist\n", &[])]
    #[case::a_pattern("COPY *.py /app/\n", &[])]
    #[case::added("ADD src /app\n", &[])]
    fn what_is_only_copied(#[case] text: &str, #[case] expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        for file in ["main.py", "conf.yaml"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let text = if text.starts_with("FROM") {
            text.to_owned()
        } else {
            format!("FROM x\n{text}")
        };
        let image = dockerfile::read(0, &text).unwrap();
        let context = Context::of(dir.path(), dir.path(), &image);
        let found: Vec<String> = paths(&image, &context)
            .iter()
            .map(|p| {
                let from = p.from.strip_prefix(dir.path()).unwrap();
                format!("{} {}", from.display(), p.to)
            })
            .collect();
        assert_eq!(found, expected);
    }
}
