//! The environment of installs and builds: devenv's own, as the owner of the checkout
//! would have it.

use nix::unistd::{Uid, User, geteuid};

/// The variables of this process that builds should see.
pub fn of_builds(owner: (u32, u32)) -> Vec<(String, String)> {
    let mine = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let user = (geteuid().as_raw() != owner.0)
        .then(|| User::from_uid(Uid::from_raw(owner.0)).ok().flatten())
        .flatten()
        .map(|u| (u.name, u.dir.display().to_string()));
    adapted(mine, user)
}

fn adapted(
    vars: impl Iterator<Item = (String, String)>,
    user: Option<(String, String)>,
) -> Vec<(String, String)> {
    let mut vars: Vec<(String, String)> = vars.filter(|(name, _)| !is_outer(name)).collect();
    if let Some((name, home)) = user {
        // Started with sudo: caches and settings are those of the checkout's owner.
        let own = [("HOME", home), ("USER", name.clone()), ("LOGNAME", name)];
        vars.retain(|(n, _)| {
            own.iter().all(|(o, _)| o != n) && !["SUDO_", "XDG_"].iter().any(|p| n.starts_with(p))
        });
        vars.extend(own.map(|(n, v)| (n.to_owned(), v)));
    }
    vars
}

/// `cargo run` sets variables about devenv's own package; a build that saw them
/// would be rebuilt whenever devenv is run in another way. Those of a notification
/// socket or an activation are for this process alone.
fn is_outer(name: &str) -> bool {
    let cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "DEP_"];
    let others = [
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "OUT_DIR",
        "NOTIFY_SOCKET",
        "LISTEN_PID",
        "LISTEN_FDS",
    ];
    others.contains(&name) || cargo.iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_outer_cargo_is_forgotten() {
        let all = vars(&[
            ("PATH", "/bin"),
            ("CARGO_PKG_NAME", "devenv"),
            ("CARGO_HOME", "/c"),
            ("OUT_DIR", "/o"),
        ]);
        assert_eq!(
            adapted(all.into_iter(), None),
            vars(&[("PATH", "/bin"), ("CARGO_HOME", "/c")])
        );
    }

    #[test]
    fn under_sudo_the_home_is_the_owners() {
        let all = vars(&[("HOME", "/root"), ("SUDO_USER", "ana"), ("LANG", "C")]);
        let owner = Some(("ana".to_owned(), "/home/ana".to_owned()));
        assert_eq!(
            adapted(all.into_iter(), owner),
            vars(&[
                ("LANG", "C"),
                ("HOME", "/home/ana"),
                ("USER", "ana"),
                ("LOGNAME", "ana")
            ])
        );
    }
}
