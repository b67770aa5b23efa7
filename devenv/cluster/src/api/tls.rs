//! Who the server is and who may speak to it: certificates and the token.
//!
//! They are made once per project and kept, so that a kubeconfig that was merged elsewhere stays
//! valid. The authority's key is thrown away after it signed the one certificate: nobody can sign
//! another.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::net::well_known::{API_IN_CLUSTER, API_SERVICE};

/// File with everything below; 0600.
const FILE: &str = "identity.json";

/// Names by which a pod may know the API server.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Certificates and token of one project's API server.
#[derive(Serialize, Deserialize)]
pub(super) struct Identity {
    /// The addresses and names that the certificate is for.
    #[serde(default)]
    names: Vec<String>,
    /// PEM of the authority, which clients trust.
    pub authority: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// What clients show.
    pub token: String,
}

impl Identity {
    /// Reads the identity from `dir`, or makes one when there is none that serves `address` and the
    /// cluster's own addresses.
    pub fn load_or_create(dir: &Path, address: IpAddr) -> Result<Identity, ApiError> {
        let path = dir.join(FILE);
        let names = names(address);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Identity>(&bytes) {
                Ok(found) if found.names == names && found.server_config().is_ok() => {
                    return Ok(found);
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "a damaged identity is made anew")
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ApiError::File { path, source }),
        }
        let identity = Identity::create(names)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| ApiError::File {
                path: dir.to_owned(),
                source,
            })?;
        // Strings and bytes always have a JSON form.
        let bytes = serde_json::to_vec(&identity).unwrap_or_default();
        write_private(&path, &bytes)?;
        Ok(identity)
    }

    fn create(names: Vec<String>) -> Result<Identity, ApiError> {
        let not_before = rcgen::date_time_ymd(2020, 1, 1);
        let not_after = rcgen::date_time_ymd(2120, 1, 1);
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority
            .distinguished_name
            .push(DnType::CommonName, "devenv local cluster");
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        (authority.not_before, authority.not_after) = (not_before, not_after);
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;

        let mut leaf = CertificateParams::new(names.clone())?;
        leaf.distinguished_name
            .push(DnType::CommonName, "devenv API server");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (not_before, not_after);
        let leaf_key = KeyPair::generate()?;
        let issuer = Issuer::new(authority, authority_key);
        let leaf_certificate = leaf.signed_by(&leaf_key, &issuer)?;

        let secret: [u8; 32] = rand::random();
        Ok(Identity {
            names,
            authority: authority_certificate.pem(),
            certificate: leaf_certificate.der().to_vec(),
            key: leaf_key.serialize_der(),
            token: hex::encode(secret),
        })
    }

    /// The TLS side: HTTP/2 or HTTP/1.1, whichever the client likes.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, ApiError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The authority as kubeconfigs carry it.
    pub fn authority_data(&self) -> String {
        BASE64_STANDARD.encode(&self.authority)
    }
}

/// Everything that the server at `address` is called.
fn names(address: IpAddr) -> Vec<String> {
    let local = [IpAddr::from(Ipv4Addr::LOCALHOST)];
    let in_cluster = [API_SERVICE, *API_IN_CLUSTER.ip()].map(IpAddr::from);
    let others = local.into_iter().chain(in_cluster);
    let mut names = vec![address.to_string()];
    names.extend(others.filter(|ip| *ip != address).map(|ip| ip.to_string()));
    names.extend(NAMES.map(str::to_owned));
    names
}

/// Whether two secrets are equal, in a time that does not tell how much of them is.
pub(super) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Writes a file that only its owner may read; whoever reads it meanwhile sees the old or the new.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ApiError> {
    let failed = |source| ApiError::File {
        path: path.to_owned(),
        source,
    };
    let mut new: PathBuf = path.to_owned();
    new.as_mut_os_string()
        .push(format!(".{}.new", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| io::Write::write_all(&mut file, bytes))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Best effort: the error that counts is the first.
        let _ = fs::remove_file(&new);
    }
    written.map_err(failed)
}
