//! Why this machine forbids namespaces, and the command that allows them.

use std::fs;

use nix::errno::Errno;

use crate::error::{Cause, Failure};

/// The settings that can forbid namespaces, as read from /proc. `None` where
/// this kernel has no such setting.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    apparmor_restricts: Option<u64>,
    userns_clone: Option<u64>,
    max_user_namespaces: Option<u64>,
    /// 2 when a seccomp filter is active, as in most containers.
    seccomp: Option<u64>,
}

impl Settings {
    fn read() -> Settings {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Settings {
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            seccomp: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|status| {
                    status
                        .lines()
                        .find_map(|line| line.strip_prefix("Seccomp:")?.trim().parse().ok())
                }),
        }
    }
}

/// Turns a refusal met while making the cluster's namespaces into one that
/// names what refuses; leaves other failures alone.
pub(crate) fn explain(failure: Failure) -> Failure {
    match diagnose(failure.errno, Settings::read()) {
        Some((by, remedy)) => Failure {
            cause: Cause::Forbidden { by, remedy },
            errno: failure.errno,
        },
        None => failure,
    }
}

fn diagnose(errno: i32, settings: Settings) -> Option<(String, String)> {
    let setting = |name: &str, is: u64, should: u64| {
        (
            format!("the kernel setting {name} = {is}"),
            format!("allow them with: sudo sysctl -w {name}={should}"),
        )
    };
    match Errno::from_raw(errno) {
        // The limit counts per user and namespace; 0 switches them off.
        Errno::ENOSPC | Errno::EUSERS => {
            let is = settings.max_user_namespaces.unwrap_or(0);
            Some(setting("user.max_user_namespaces", is, (is * 2).max(15_000)))
        }
        Errno::EPERM | Errno::EACCES => Some(match settings {
            Settings { userns_clone: Some(0), .. } => {
                setting("kernel.unprivileged_userns_clone", 0, 1)
            }
            // Ubuntu since 23.10: the namespace is made, but without any rights.
            Settings { apparmor_restricts: Some(is @ 1..), .. } => {
                setting("kernel.apparmor_restrict_unprivileged_userns", is, 0)
            }
            Settings { max_user_namespaces: Some(0), .. } => {
                setting("user.max_user_namespaces", 0, 15_000)
            }
            Settings { seccomp: Some(2), .. } => (
                "the seccomp filter that this process runs under (a container's, as a rule)".into(),
                "start that container with: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined".into(),
            ),
            _ => (
                "a security policy of this machine".into(),
                "see what refused it with: sudo dmesg | grep -i -e denied -e audit".into(),
            ),
        }),
        Errno::EINVAL | Errno::ENOSYS => Some((
            "a kernel that was built without them (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS)".into(),
            "run a kernel that has them; check with: zgrep _NS= /proc/config.gz".into(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Settings = Settings {
        apparmor_restricts: None,
        userns_clone: None,
        max_user_namespaces: Some(96_000),
        seccomp: Some(0),
    };

    #[rstest::rstest]
    #[case::debian(Errno::EPERM, Settings { userns_clone: Some(0), ..OPEN }, "sysctl -w kernel.unprivileged_userns_clone=1")]
    #[case::ubuntu(Errno::EACCES, Settings { apparmor_restricts: Some(1), ..OPEN }, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")]
    #[case::ubuntu_with_debians_switch_on(Errno::EPERM, Settings { apparmor_restricts: Some(1), userns_clone: Some(1), ..OPEN }, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")]
    #[case::switched_off(Errno::ENOSPC, Settings { max_user_namespaces: Some(0), ..OPEN }, "sysctl -w user.max_user_namespaces=15000")]
    #[case::used_up(Errno::ENOSPC, OPEN, "sysctl -w user.max_user_namespaces=192000")]
    #[case::container(Errno::EPERM, Settings { seccomp: Some(2), ..OPEN }, "docker run --security-opt seccomp=unconfined")]
    #[case::policy(Errno::EPERM, OPEN, "dmesg")]
    #[case::old_kernel(Errno::EINVAL, OPEN, "/proc/config.gz")]
    fn each_refusal_has_its_remedy(
        #[case] errno: Errno,
        #[case] settings: Settings,
        #[case] remedy: &str,
    ) {
        let (by, says) = diagnose(errno as i32, settings).unwrap();
        assert!(says.contains(remedy), "{by}: {says}");
    }

    #[test]
    fn other_failures_are_left_alone() {
        assert!(diagnose(Errno::ENOMEM as i32, OPEN).is_none());
    }
}
