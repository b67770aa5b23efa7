//! A signed payload in one JSON file, in the format of DSSE (the Dead Simple Signing
//! Envelope, which in-toto and Sigstore use): what is signed are the payload's exact
//! bytes and its type.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

use crate::keys::{PublicKey, SigningKey};

/// The type of the payload.
const PAYLOAD_TYPE: &str = "application/vnd.devenv.verdict+json";

/// The file's contents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    payload_type: String,
    /// Base64.
    payload: String,
    signatures: Vec<SignatureOf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SignatureOf {
    /// The text form of the public key.
    keyid: String,
    /// Base64.
    sig: String,
}

/// What an envelope holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The payload's bytes.
    pub(crate) payload: Vec<u8>,
    /// The keys whose signature is right.
    pub(crate) signed_by: Vec<PublicKey>,
    /// What the keys are called whose signature is wrong, or which can't be read.
    pub(crate) wrong: Vec<String>,
}

/// Why there is nothing to be had from an envelope.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("it holds {0:?}, not a verdict ({PAYLOAD_TYPE})")]
    OtherType(String),
    #[error("its payload is not base64")]
    Payload,
}

impl Envelope {
    /// Signs `payload`.
    pub(crate) fn seal(payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&signed_bytes(payload));
        Self {
            payload_type: PAYLOAD_TYPE.into(),
            payload: BASE64_STANDARD.encode(payload),
            signatures: vec![SignatureOf {
                keyid: key.public().to_string(),
                sig: BASE64_STANDARD.encode(signature),
            }],
        }
    }

    /// The payload, and who signed it.
    pub(crate) fn open(&self) -> Result<Opened, EnvelopeError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::OtherType(self.payload_type.clone()));
        }
        let payload = BASE64_STANDARD
            .decode(&self.payload)
            .map_err(|_| EnvelopeError::Payload)?;
        let bytes = signed_bytes(&payload);
        let (mut signed_by, mut wrong) = (Vec::new(), Vec::new());
        for signature in &self.signatures {
            let key = signature.keyid.parse::<PublicKey>().ok().filter(|key| {
                BASE64_STANDARD
                    .decode(&signature.sig)
                    .is_ok_and(|s| key.verifies(&bytes, &s))
            });
            match key {
                Some(key) => signed_by.push(key),
                None => wrong.push(signature.keyid.clone()),
            }
        }
        Ok(Opened {
            payload,
            signed_by,
            wrong,
        })
    }
}

/// DSSE's «pre-authentication encoding».
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}
