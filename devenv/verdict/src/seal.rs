//! Secrets are covered, and a verdict doesn't give them away.
//!
//! A plain hash of `hunter2` is as good as `hunter2`. A key that only one machine has
//! would make a verdict worthless on every other. So a secret is covered as its Argon2id
//! with a salt that is new for each verdict: whoever has the secret can compare, and
//! whoever has only the verdict pays [`Seal`]'s memory and time for each guess. A long
//! random secret is safe behind that; a word from a dictionary is found in the end, as it
//! would be on the server.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How the secrets of one verdict are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Random bytes in hexadecimal, new for each verdict.
    salt: String,
    /// KiB of memory for each hash.
    memory_kib: u32,
    /// Passes over it.
    passes: u32,
    /// Lanes.
    lanes: u32,
}

/// Why a secret can't be hashed as a verdict says.
#[derive(Debug, thiserror::Error)]
#[error("its secrets are hashed with parameters that can't be used: {0}")]
pub struct SealError(String);

/// More than this is no parameter but an attack or damage.
const MOST_MEMORY_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;

impl Seal {
    /// A new one, at the cost that OWASP recommends.
    pub(crate) fn new() -> Self {
        Self::with_cost(Params::DEFAULT_M_COST, Params::DEFAULT_T_COST)
    }

    pub(crate) fn with_cost(memory_kib: u32, passes: u32) -> Self {
        Self {
            salt: hex::encode(rand::random::<[u8; 16]>()),
            memory_kib,
            passes,
            lanes: Params::DEFAULT_P_COST,
        }
    }

    /// The hash of a secret as it stands in a verdict. The name goes into it: that two
    /// secrets are the same is nobody's business either.
    pub(crate) fn hash(&self, name: &str, material: &[u8; 32]) -> Result<String, SealError> {
        let broken = |why: &dyn std::fmt::Display| SealError(why.to_string());
        if self.memory_kib > MOST_MEMORY_KIB || self.passes > MOST_PASSES || self.lanes > 16 {
            return Err(SealError(format!(
                "{} KiB, {} passes, {} lanes",
                self.memory_kib, self.passes, self.lanes
            )));
        }
        let salt = hex::decode(&self.salt).map_err(|e| broken(&e))?;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|e| broken(&e))?;
        let mut password = Sha256::new();
        password.update((name.len() as u64).to_le_bytes());
        password.update(name);
        password.update(material);
        let mut hash = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&password.finalize(), &salt, &mut hash)
            .map_err(|e| broken(&e))?;
        Ok(format!("argon2id:{}", hex::encode(hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_looks_different_in_each_verdict_and_under_each_name() {
        let (one, other) = (Seal::with_cost(8, 1), Seal::with_cost(8, 1));
        let hash = one.hash("a", &[1; 32]).unwrap();
        assert_eq!(one.hash("a", &[1; 32]).unwrap(), hash);
        assert_ne!(one.hash("a", &[2; 32]).unwrap(), hash);
        assert_ne!(one.hash("b", &[1; 32]).unwrap(), hash);
        assert_ne!(other.hash("a", &[1; 32]).unwrap(), hash);
    }

    #[test]
    fn a_guess_costs_what_owasp_recommends() {
        let seal = Seal::new();
        assert_eq!((seal.memory_kib, seal.passes, seal.lanes), (19 << 10, 2, 1));
        assert_eq!(seal.salt.len(), 32);
    }

    #[rstest::rstest]
    #[case::memory(u32::MAX, 1, "00112233445566778899aabbccddeeff")]
    #[case::passes(8, u32::MAX, "00112233445566778899aabbccddeeff")]
    #[case::too_little(1, 1, "00112233445566778899aabbccddeeff")]
    #[case::short_salt(8, 1, "00")]
    #[case::no_salt(8, 1, "zz")]
    fn absurd_parameters_are_refused(#[case] memory: u32, #[case] passes: u32, #[case] salt: &str) {
        let mut seal = Seal::with_cost(memory, passes);
        seal.salt = salt.into();
        seal.hash("a", &[1; 32]).unwrap_err();
    }
}
