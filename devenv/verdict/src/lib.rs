//! Verdicts: what was tested, bound to the hash of exactly that tree, and signed against
//! accidents.
//!
//! [`Look::take`] lists and hashes everything that decides how the system behaves, as far
//! as it lies in the project: that is a [`Tree`]. A [`Verdict`] says how a run went
//! between two looks that were the same, [`Store::save`] signs and keeps it, and
//! [`verify`] says of the tree at hand whether a verdict applies to it and, if not, input
//! by input why.
//!
//! # What is covered
//!
//! - `devenv.toml`, and how each image is built and run (also where that was inferred).
//! - The files of each image's context (its `source` and `watch`), of the migrations and
//!   of the suites: those that git tracks, and those that no `.gitignore` names and that
//!   are not what tools make ([`devenv_model::MADE`]: `.devenv/`, `target/`,
//!   `node_modules/`, …). Contents and whether the owner, group or others may execute
//!   it count; other permissions and times don't. A symbolic link counts as where it leads
//!   and, if that is a file, what it holds. What `image.NAME.ignore` names is left out. A
//!   build output that git doesn't ignore counts as a source.
//! - Every rendered object, whatever files and kustomizations it comes from: comments and
//!   the order of keys don't count.
//! - The versions of the compilers, interpreters and package managers that the images'
//!   commands name; the database engine's, or the Compose file of the database where that
//!   is a container; target and profile; at level `image` the digest of every image that a
//!   workload uses, and of the database's.
//!
//! # Levels
//!
//! Processes of the tree make a verdict at level `source`, containers one at level `image`:
//! it is about exactly the images that ran. Images are more than the sources that they were
//! built from, so such a verdict serves where `source` is asked for, too, whatever digests
//! there are now; and the database is not compared then, since beside containers it is
//! another one than beside processes. The other way round it does not: what processes have
//! proven says nothing of images.
//!
//! Objects of kind Secret and the files that they are written in are covered, and can't be
//! read or cheaply guessed from the verdict ([`Seal`]). Everything else is hashed as it
//! is: a secret in a ConfigMap, in devenv.toml or in a source could be guessed from its
//! file's hash, as from the file. The database's password is devenv's own and new for
//! each environment; it isn't covered. What else isn't stands in each verdict, in words
//! ([`Coverage::not_covered`]).
//!
//! # What a signature is for
//!
//! It says whose run it was, and that nobody edited the file by mistake. It is no defence
//! against malice: whoever can run devenv as its user can sign anything. With
//! `[gate] trusted_keys` in `devenv.toml`, only the runs of those keys (such as CI's)
//! count.
//!
//! Everything here blocks: an async caller wants `spawn_blocking`.
#![warn(missing_docs)]

mod coverage;
mod digests;
mod envelope;
mod error;
mod files;
mod keys;
mod owner;
mod seal;
mod store;
mod toolchain;
mod tree;
mod verdict;
mod verify;

pub use coverage::{Change, Coverage, Group, How, Inputs, tree_hash};
pub use digests::{ImageDigests, Undigested};
pub use error::CoverageError;
pub use keys::{KeyError, NoPublicKey, PublicKey, SigningKey};
pub use seal::{Seal, SealError};
pub use store::{Damaged, Saved, Store, StoreError, Stored};
pub use toolchain::{Installed, Programs};
pub use tree::{Beside, Look, NO_PROFILE, SUITES, Tree};
pub use verdict::{Level, SCHEMA, SuiteOutcome, TestOutcome, Verdict, VerdictError};
pub use verify::{Found, Policy, Reason, Verification, verify};

#[cfg(test)]
mod tests;
