//! What ConfigMaps and Secrets hold, as bytes.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::kinds::{self, KindRef};
use crate::store::Store;

/// Key and value of a ConfigMap or a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Looks up ConfigMaps and Secrets of one namespace.
pub trait Configs: fmt::Debug {
    /// `data` and `binaryData` of a ConfigMap, if it is there.
    fn config_map(&self, name: &str) -> Option<Data>;
    /// The decoded data of a Secret, if it is there.
    fn secret(&self, name: &str) -> Option<Data>;
    /// Whether a ConfigMap is there and will never hold anything else.
    fn config_map_is_immutable(&self, name: &str) -> bool;
    /// The same of a Secret.
    fn secret_is_immutable(&self, name: &str) -> bool;
}

/// Those of a namespace in the store.
#[derive(Debug)]
pub struct StoredConfigs<'a> {
    /// The store.
    pub store: &'a Store,
    /// The namespace.
    pub namespace: &'a str,
}

impl Configs for StoredConfigs<'_> {
    fn config_map(&self, name: &str) -> Option<Data> {
        let object = self.store.get(&kinds::CONFIG_MAP, self.namespace, name)?;
        let map: ConfigMap = object.typed().ok()?;
        let text = map
            .data
            .into_iter()
            .flatten()
            .map(|(k, v)| (k, v.into_bytes()));
        let binary = map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0));
        Some(text.chain(binary).collect())
    }

    fn secret(&self, name: &str) -> Option<Data> {
        let object = self.store.get(&kinds::SECRET, self.namespace, name)?;
        let secret: Secret = object.typed().ok()?;
        let data = secret.data.into_iter().flatten().map(|(k, v)| (k, v.0));
        // The API turns stringData into data; a Secret written past it may still carry it.
        let text = secret
            .string_data
            .into_iter()
            .flatten()
            .map(|(k, v)| (k, v.into_bytes()));
        Some(data.chain(text).collect())
    }

    fn config_map_is_immutable(&self, name: &str) -> bool {
        self.is_immutable(&kinds::CONFIG_MAP, name)
    }

    fn secret_is_immutable(&self, name: &str) -> bool {
        self.is_immutable(&kinds::SECRET, name)
    }
}

impl StoredConfigs<'_> {
    fn is_immutable(&self, kind: KindRef, name: &str) -> bool {
        let object = self.store.get(kind, self.namespace, name);
        object.is_some_and(|o| o.value()["immutable"] == true)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// Fixed ConfigMaps and Secrets.
    #[derive(Debug, Default)]
    pub(crate) struct Fixed {
        maps: BTreeMap<String, Data>,
        secrets: BTreeMap<String, Data>,
    }

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    }

    impl Fixed {
        pub(crate) fn config_map(mut self, name: &str, pairs: &[(&str, &str)]) -> Fixed {
            self.maps.insert(name.into(), data(pairs));
            self
        }
        pub(crate) fn secret(mut self, name: &str, pairs: &[(&str, &str)]) -> Fixed {
            self.secrets.insert(name.into(), data(pairs));
            self
        }
    }

    impl Configs for Fixed {
        fn config_map(&self, name: &str) -> Option<Data> {
            self.maps.get(name).cloned()
        }
        fn secret(&self, name: &str) -> Option<Data> {
            self.secrets.get(name).cloned()
        }
        fn config_map_is_immutable(&self, name: &str) -> bool {
            name.starts_with("fixed-")
        }
        fn secret_is_immutable(&self, name: &str) -> bool {
            name.starts_with("fixed-")
        }
    }

    #[test]
    fn secrets_are_decoded() {
        let store = Store::in_memory();
        let secret = json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"K": "dg=="}, "stringData": {"T": "t"}});
        store.create(&kinds::SECRET, secret).expect("created");
        let configs = StoredConfigs {
            store: &store,
            namespace: "default",
        };
        assert_eq!(configs.secret("s"), Some(data(&[("K", "v"), ("T", "t")])));
        assert_eq!(configs.secret("no"), None);
        assert_eq!(configs.config_map("s"), None);
    }
}
