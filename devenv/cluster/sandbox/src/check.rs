//! What cannot work is refused before any process hears of it.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::{
    error::SandboxError,
    spec::{ContainerSpec, FileMount},
};

pub(crate) fn check_signal(signal: i32) -> Result<(), SandboxError> {
    match Signal::try_from(signal) {
        Ok(_) => Ok(()),
        Err(_) => Err(SandboxError::Invalid(format!(
            "{signal} is not a signal; see kill -l"
        ))),
    }
}

pub(crate) fn check_hostname(hostname: &str) -> Result<(), SandboxError> {
    if (1..=64).contains(&hostname.len()) && !hostname.contains(['\0', '\n', '/']) {
        return Ok(());
    }
    Err(SandboxError::Invalid(format!(
        "the host name {hostname:?} is not usable; it must have 1 to 64 bytes"
    )))
}

pub(crate) fn check_container(spec: &ContainerSpec) -> Result<(), SandboxError> {
    check_program(&spec.argv, &spec.env, &spec.cwd)?;
    check_files(&spec.files)?;
    let binds = spec.binds.iter();
    let mut paths = binds
        .flat_map(|bind| [&bind.source, &bind.target])
        .chain(&spec.hidden);
    paths.try_for_each(|path| check_absolute(path))
}

pub(crate) fn check_files(files: &[FileMount]) -> Result<(), SandboxError> {
    files.iter().try_for_each(|file| check_absolute(&file.path))
}

pub(crate) fn check_absolute(path: &Path) -> Result<(), SandboxError> {
    if path.is_absolute() {
        return Ok(());
    }
    let path = path.display();
    Err(SandboxError::Invalid(format!(
        "the path {path} is not usable; it must be absolute"
    )))
}

/// What exec would refuse or misread.
pub(crate) fn check_program(
    argv: &[String],
    env: &[(String, String)],
    cwd: &Path,
) -> Result<(), SandboxError> {
    let invalid = |what: String| Err(SandboxError::Invalid(what));
    if argv.first().is_none_or(String::is_empty) {
        return invalid("there is no program to execute; argv must begin with one".into());
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return invalid(format!("an argument of {} contains a NUL byte", argv[0]));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            // The value may be a secret.
            return invalid(format!(
                "the environment variable {name:?} is not usable; names must not be empty or contain '=', and neither part a NUL byte"
            ));
        }
    }
    check_absolute(cwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::no_program(&[], &[], "/", "no program")]
    #[case::empty_program(&[""], &[], "/", "no program")]
    #[case::nul(&["sh", "a\0b"], &[], "/", "NUL")]
    #[case::bad_name(&["sh"], &[("A=B", "secret")], "/", "A=B")]
    #[case::nul_value(&["sh"], &[("A", "secret\0")], "/", "NUL")]
    #[case::relative(&["sh"], &[], "src", "absolute")]
    fn unusable_programs_are_refused(
        #[case] argv: &[&str],
        #[case] env: &[(&str, &str)],
        #[case] cwd: &str,
        #[case] says: &str,
    ) {
        let argv: Vec<String> = argv.iter().map(|s| s.to_string()).collect();
        let env: Vec<_> = env
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        let message = check_program(&argv, &env, Path::new(cwd))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(says) && !message.contains("secret"),
            "{message}"
        );
    }
}
