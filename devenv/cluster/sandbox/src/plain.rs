//! Where namespaces are forbidden: the same promise that nothing outlives the
//! supervisor, kept with process trees alone.
//!
//! ```text
//! supervisor         the caller
//! └─ devenv keeper   waits for the supervisor's hang-up, then ends what is below; runs builds
//!    └─ devenv holder   one for each container: its program's parent and child subreaper
//!       └─ the program, in a session of its own
//! ```
//!
//! A child subreaper is given the orphans of everything below it, so whatever
//! a program does (double fork, setsid, an empty environment), it stays a
//! descendant of its holder, and a holder that has no child left has no
//! descendant left either. That is how the end of a container is known.
//!
//! Several deaths are provided for: a holder and the keeper end on the hang-up
//! of the supervisor, a holder ends when the keeper is gone, a program is
//! killed with its holder, and orphans of a killed holder go to the keeper.
//! Should all of them be killed at once, the next start finds what is left by
//! an environment variable ([`sweep`]).

mod family;
mod handle;
mod holder;
mod keeper;
mod listening;
mod messages;
mod program;
mod sweep;

pub(crate) use family::descendants_of;
pub(crate) use holder::run as run_holder;
pub(crate) use keeper::run as run_keeper;
pub(crate) use messages::PlainLaunch;
pub(crate) use program::become_program;

pub use handle::{Holder, Plain};
pub use messages::HeldEvent;
