//! Load, apply, wait: the engine behind every command; no printing.

#![warn(missing_docs)]
