//! `devenv verdict`.

use std::process::ExitCode;

use clap::Args;
use devenv_verdict::{Policy, SigningKey, Store, verify};

use super::Context;
use crate::{
    e2e::tree::{blocking, loaded, look},
    error::{CliError, exit},
    render,
};

/// Say whether a verdict of `devenv test e2e` applies to exactly this tree, and why not.
///
/// Verdicts are in .devenv/verdicts, signed with the key in your configuration directory:
/// against accidents, not malice. `[gate] trusted_keys` in devenv.toml names the only keys
/// that count.
#[derive(Debug, Args)]
pub struct VerdictArgs {
    /// Exit with 1 unless a passing verdict applies
    #[arg(long)]
    verify: bool,
    /// Print the public key of your verdicts, for `[gate] trusted_keys`
    #[arg(long, conflicts_with_all = ["verify", "profile"])]
    key: bool,
    /// The profile of devenv.toml
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

pub async fn verdict(args: VerdictArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    if args.key {
        let root = project.root.clone();
        let key = blocking(move || Ok(SigningKey::of_user(&root)?.public())).await?;
        render::url(&key.to_string(), context.format);
        return Ok(ExitCode::SUCCESS);
    }
    let load = context.load_options(args.profile.as_deref());
    // Shows what is wrong with the project's files.
    project.load(&load)?;
    let tree = look(&project, &load, "local").await?;
    let (root, state) = (project.root.clone(), project.state.base().to_owned());
    let found = blocking(move || {
        let policy =
            Policy::of(&loaded(&root, &load)?).map_err(|e| CliError::Check(e.to_string()))?;
        Ok(verify(&Store::in_state(&state), &tree, &policy)?)
    })
    .await?;
    render::verification(&found, context.format);
    Ok(if args.verify && !found.applies {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}
