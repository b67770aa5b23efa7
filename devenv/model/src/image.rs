//! Image references as manifests write them.

/// `registry/path/name:tag@digest`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// Registry and path, without tag and digest.
    pub name: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is the registry's port.
        let base = rest.rfind('/').map_or(0, |i| i + 1);
        match rest[base..].find(':') {
            Some(i) => Self {
                name: &rest[..base + i],
                tag: Some(&rest[base + i + 1..]),
                digest,
            },
            None => Self {
                name: rest,
                tag: None,
                digest,
            },
        }
    }

    /// The name without its registry: `europe-docker.pkg.dev/p/r/api1` is `p/r/api1`.
    pub(crate) fn path(&self) -> &'a str {
        match self.name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
            _ => self.name,
        }
    }

    /// The last part of the name.
    pub(crate) fn base(&self) -> &'a str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }
}

/// The keys under which an image may stand in `devenv.toml`, the most exact first.
pub(crate) fn keys(image: &str) -> [&str; 4] {
    let reference = Reference::parse(image);
    [image, reference.name, reference.path(), reference.base()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("api1", ["api1", "api1", "api1", "api1"])]
    #[case("api1:v2", ["api1:v2", "api1", "api1", "api1"])]
    #[case("localhost:5000/t/api1", ["localhost:5000/t/api1", "localhost:5000/t/api1", "t/api1", "api1"])]
    #[case(
        "eu.gcr.io/p/api1:v1@sha256:ab",
        ["eu.gcr.io/p/api1:v1@sha256:ab", "eu.gcr.io/p/api1", "p/api1", "api1"]
    )]
    fn looked_up_from_whole_to_last_part(#[case] image: &str, #[case] want: [&str; 4]) {
        assert_eq!(keys(image), want);
    }
}
