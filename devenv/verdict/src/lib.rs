//! Verdicts: what was tested, bound to the hash of exactly that tree, and signed against
//! accidents.
#![warn(missing_docs)]
