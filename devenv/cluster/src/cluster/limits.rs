//! What this process may use of the machine.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit on open files to the hard one, as container runtimes do.
///
/// A pod takes about ten (its log, its pipes, its sandbox) and a request one or two, while the
/// soft limit is 1,024 on most systems, for the sake of programs that use select(2). To be called
/// after netd (or its stand-in without namespaces) was started: pods and builds come from there
/// and keep the limit of the user.
pub(super) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(
            error = &error as &dyn std::error::Error,
            "the limit on open files could not be raised"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit
            .maximum
            .map_or(Some(1_024), |most| Some(most.min(1_024)));
        setrlimit(Resource::Nofile, limit).expect("lowered");
        raise_open_files();
        let raised = getrlimit(Resource::Nofile);
        assert_eq!(
            (raised.current, raised.maximum),
            (limit.maximum, limit.maximum)
        );
    }
}
