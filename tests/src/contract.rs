//! The reference application's contract, checked from outside: the programs in each
//! language as plain processes on a real MariaDB, asked over HTTP and Socket.IO.
//!
//! [`program`] says how each is installed and started, [`stage`] keeps the database
//! and the running programs of a whole run, [`api`] and [`socket`] ask.

pub mod api;
pub mod program;
pub mod socket;
pub mod stage;
