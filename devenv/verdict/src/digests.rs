//! Which container images run: what a verdict at level `image` is about.

use std::collections::BTreeMap;

/// Knows the digests of the images that run.
pub trait ImageDigests: Sync {
    /// The digest (`sha256:…`) of an image as a manifest writes it; nothing if it is not
    /// known.
    ///
    /// # Errors
    /// Why it can't be told, for people.
    fn digest(&self, image: &str) -> Result<Option<String>, String>;
}

impl ImageDigests for BTreeMap<String, String> {
    fn digest(&self, image: &str) -> Result<Option<String>, String> {
        Ok(self.get(image).cloned())
    }
}

/// Nobody knows a digest: processes of the tree run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Undigested;

impl ImageDigests for Undigested {
    fn digest(&self, _image: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}
