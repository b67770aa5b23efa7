//! What the files of a volume hold, from the objects that it names. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::VolumeError;
use crate::pod::configs::{Configs, Data};
use crate::pod::env::{Facts, field};

/// A file's contents and permission bits.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

impl std::fmt::Debug for Content {
    /// Without the bytes: they may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {:o}", self.bytes.len(), self.mode)
    }
}

/// The files of a volume, by their path in it.
pub(super) type Files = BTreeMap<PathBuf, Content>;

/// Everything that a volume holds.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) files: Files,
    /// None of the objects can ever say something else.
    pub(super) immutable: bool,
}

/// Where a volume's files come from.
struct Origin<'a> {
    pod: &'a Pod,
    configs: &'a dyn Configs,
    facts: &'a Facts,
    default_mode: Option<i32>,
}

/// What the objects say now; `None` for a volume that is not made of objects.
pub(super) fn of(
    pod: &Pod,
    volume: &Volume,
    configs: &dyn Configs,
    facts: &Facts,
) -> Result<Option<Payload>, VolumeError> {
    let origin = |default_mode| Origin {
        pod,
        configs,
        facts,
        default_mode,
    };
    if let Some(s) = &volume.config_map {
        let origin = origin(s.default_mode);
        return origin
            .config_map(&s.name, s.items.as_deref(), s.optional)
            .map(Some);
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        let origin = origin(s.default_mode);
        return origin
            .secret(name, s.items.as_deref(), s.optional)
            .map(Some);
    }
    if let Some(s) = &volume.downward_api {
        let items = s.items.as_deref().unwrap_or_default();
        return origin(s.default_mode).downward(items).map(Some);
    }
    let Some(projected) = &volume.projected else {
        return Ok(None);
    };
    let origin = origin(projected.default_mode);
    let mut all = Payload {
        immutable: true,
        ..Payload::default()
    };
    for source in projected.sources.iter().flatten() {
        let one = origin.projection(&volume.name, source)?;
        all.files.extend(one.files);
        all.immutable &= one.immutable;
    }
    Ok(Some(all))
}

/// What a volume was asked to hold and does not: tokens are not made here.
pub(super) fn absent(volume: &Volume) -> Vec<String> {
    let projected = volume.projected.iter();
    let sources = projected.flat_map(|p| p.sources.iter().flatten());
    let tokens = sources.filter_map(|s| s.service_account_token.as_ref());
    tokens
        .map(|token| {
            format!(
                "volume {:?}: there is no file {:?}: tokens of service accounts are not made here, so what asks the Kubernetes API as one is answered 401",
                volume.name, token.path
            )
        })
        .collect()
}

impl Origin<'_> {
    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Payload, VolumeError> {
        let data = self.require("configmap", name, optional, self.configs.config_map(name))?;
        Ok(Payload {
            files: self.select(name, data, items, optional)?,
            immutable: self.configs.config_map_is_immutable(name),
        })
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Payload, VolumeError> {
        let data = self.require("secret", name, optional, self.configs.secret(name))?;
        Ok(Payload {
            files: self.select(name, data, items, optional)?,
            immutable: self.configs.secret_is_immutable(name),
        })
    }

    fn projection(&self, volume: &str, source: &VolumeProjection) -> Result<Payload, VolumeError> {
        if let Some(s) = &source.config_map {
            self.config_map(&s.name, s.items.as_deref(), s.optional)
        } else if let Some(s) = &source.secret {
            self.secret(&s.name, s.items.as_deref(), s.optional)
        } else if let Some(s) = &source.downward_api {
            self.downward(s.items.as_deref().unwrap_or_default())
        } else if source.service_account_token.is_some() {
            // `absent` tells of it.
            Ok(Payload {
                immutable: true,
                ..Payload::default()
            })
        } else {
            Err(VolumeError(format!(
                "projected volume {volume:?}: only configMap, secret, downwardAPI and serviceAccountToken are known here"
            )))
        }
    }

    fn require(
        &self,
        what: &str,
        name: &str,
        optional: Option<bool>,
        data: Option<Data>,
    ) -> Result<Data, VolumeError> {
        let ns = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        match data {
            Some(data) => Ok(data),
            None if optional.unwrap_or(false) => Ok(Data::new()),
            None => Err(VolumeError(format!(
                "{what} {name:?} not found in namespace {ns:?}"
            ))),
        }
    }

    fn select(
        &self,
        name: &str,
        mut data: Data,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Files, VolumeError> {
        let mode = mode_of(self.default_mode);
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let file = |(key, bytes): (String, _)| (key.into(), Content { bytes, mode });
            return Ok(data.into_iter().map(file).collect());
        };
        let mut files = Files::new();
        for item in items {
            match data.remove(&item.key) {
                Some(bytes) => {
                    let mode = item.mode.map_or(mode, |m| mode_of(Some(m)));
                    files.insert(relative(&item.path)?, Content { bytes, mode });
                }
                None if optional.unwrap_or(false) => {}
                None => {
                    return Err(VolumeError(format!(
                        "references non-existent key {:?} of {name:?}",
                        item.key
                    )));
                }
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile]) -> Result<Payload, VolumeError> {
        let mut files = Files::new();
        for item in items {
            let selector = item.field_ref.as_ref().ok_or_else(|| {
                VolumeError(format!(
                    "downwardAPI file {:?}: only fieldRef is supported here",
                    item.path
                ))
            })?;
            let text = field(self.pod, selector, self.facts).map_err(|e| VolumeError(e.0))?;
            let content = Content {
                bytes: text.into_bytes(),
                mode: mode_of(item.mode.or(self.default_mode)),
            };
            files.insert(relative(&item.path)?, content);
        }
        Ok(Payload {
            files,
            // Labels and annotations change.
            immutable: false,
        })
    }
}

/// 0644 unless said otherwise, as in Kubernetes.
fn mode_of(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777
}

fn relative(path: &str) -> Result<PathBuf, VolumeError> {
    let outside = path.is_empty() || path.starts_with('/');
    // Names that begin with two dots are those of the volume's own machinery.
    if outside || path.split('/').any(|part| part == "..") || path.starts_with("..") {
        return Err(VolumeError(format!(
            "path {path:?} of a volume's item must be relative, without `..`"
        )));
    }
    Ok(PathBuf::from(path))
}
