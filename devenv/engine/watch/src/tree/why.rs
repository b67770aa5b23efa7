//! Why some changes are not heard of at once.

use std::{collections::BTreeMap, fs, path::PathBuf};

use rustix::io::Errno;

use super::Tree;

impl Tree {
    /// What isn't watched by events, why, and what mends it; `None`: everything is.
    /// `forced`: polling was asked for.
    pub(crate) fn why_polling(&self, forced: bool) -> Option<String> {
        why(forced, self.no_queue, self.full, &self.silent, limit)
    }

    /// Changes when [`Tree::why_polling`] may.
    pub(crate) fn reasons(&self) -> (bool, usize) {
        (self.full, self.silent.len())
    }
}

/// The machine's limit of this name.
fn limit(name: &str) -> Option<u64> {
    let now = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
    now.ok()?.trim().parse().ok()
}

fn why(
    forced: bool,
    no_queue: Option<Errno>,
    full: bool,
    silent: &BTreeMap<&'static str, PathBuf>,
    limit: impl Fn(&str) -> Option<u64>,
) -> Option<String> {
    let raise = |what: &str, name: &str, enough: u64| {
        let now = limit(name).unwrap_or_default();
        let new = enough.max(now.saturating_mul(2));
        format!(
            "this user's programs have all the inotify {what} that are allowed \
             (fs.inotify.{name} = {now}); \
             run `sudo sysctl fs.inotify.{name}={new}` and start again"
        )
    };
    let mut whys = Vec::new();
    if forced {
        whys.push("polling was asked for".to_owned());
    }
    match no_queue {
        Some(Errno::MFILE) => whys.push(raise("instances", "max_user_instances", 1024)),
        Some(e) => whys.push(format!("inotify can't be used: {e}")),
        None => {}
    }
    if full {
        whys.push(raise("watches", "max_user_watches", 524_288));
    }
    for (name, path) in silent {
        whys.push(format!(
            "{} is on {name}, which doesn't tell of changes made elsewhere; \
             a copy on a local disk is watched without polling",
            path.display(),
        ));
    }
    (!whys.is_empty()).then(|| whys.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const WATCHES: &str = "this user's programs have all the inotify watches that are \
        allowed (fs.inotify.max_user_watches = 8192); \
        run `sudo sysctl fs.inotify.max_user_watches=524288` and start again";
    const INSTANCES: &str = "this user's programs have all the inotify instances that are \
        allowed (fs.inotify.max_user_instances = 8192); \
        run `sudo sysctl fs.inotify.max_user_instances=16384` and start again";
    const SERVER: &str = "/home/me is on NFS, which doesn't tell of changes made elsewhere; \
        a copy on a local disk is watched without polling";

    #[rstest]
    #[case(false, None, false, false, &[])]
    #[case(true, None, false, false, &["polling was asked for"])]
    #[case(false, None, true, false, &[WATCHES])]
    #[case(false, Some(Errno::MFILE), false, false, &[INSTANCES])]
    #[case(false, None, true, true, &[WATCHES, SERVER])]
    fn it_says_what_mends_it(
        #[case] forced: bool,
        #[case] no_queue: Option<Errno>,
        #[case] full: bool,
        #[case] server: bool,
        #[case] expected: &[&str],
    ) {
        let silent = server.then(|| ("NFS", PathBuf::from("/home/me")));
        let silent = silent.into_iter().collect();
        let why = why(forced, no_queue, full, &silent, |_| Some(8192));
        assert_eq!(why.unwrap_or_default(), expected.join("; "));
    }
}
