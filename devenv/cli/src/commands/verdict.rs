//! `devenv verdict`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use devenv_engine::TargetKind;
use devenv_verdict::{Level, Policy, SigningKey, Store, verify};

use super::Context;
use crate::{
    e2e::{
        images::{self, Given},
        tree::{blocking, loaded, look},
    },
    error::{CliError, exit},
    render,
};

/// Say whether a verdict of `devenv test e2e` applies to exactly this tree, and why not.
///
/// A run of processes makes one at level source; a run with `--runtime docker` or `--target
/// kind` one at level image, about exactly the images that ran, which serves for the source as
/// well. Nothing is built to compare.
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
    #[arg(long, conflicts_with_all = ["verify", "profile", "target", "level", "image"])]
    key: bool,
    /// The profile of devenv.toml
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The target that it has to be on: local (the default) or kind
    #[arg(long, value_name = "TARGET", value_parser = super::target)]
    target: Option<TargetKind>,
    /// What must have run: this tree, as processes or built into any images (source, the
    /// default), or exactly the images that are built now (image)
    #[arg(long, value_name = "LEVEL")]
    level: Option<Asked>,
    /// The digest of an image, in place of what this machine's Docker Engine has now; asks
    /// for the level image
    #[arg(long, value_name = "NAME=sha256:…")]
    image: Vec<Given>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Asked {
    Source,
    Image,
}

impl VerdictArgs {
    fn level(&self) -> Result<Level, CliError> {
        match self.level {
            Some(Asked::Source) if !self.image.is_empty() => Err(CliError::Usage(
                "--image says which images must have run, and at level source none has to"
                    .to_owned(),
            )),
            None if self.image.is_empty() => Ok(Level::Source),
            Some(Asked::Source) => Ok(Level::Source),
            Some(Asked::Image) | None => Ok(Level::Image),
        }
    }
}

pub async fn verdict(args: VerdictArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    if args.key {
        let root = project.root.clone();
        let key = blocking(move || Ok(SigningKey::of_user(&root)?.public())).await?;
        render::url(&key.to_string(), context.format);
        return Ok(ExitCode::SUCCESS);
    }
    let level = args.level()?;
    let load = context.load_options(args.profile.as_deref());
    // Shows what is wrong with the project's files.
    let topology = project.load(&load)?;
    let images = level == Level::Image;
    let target = args.target.unwrap_or_default();
    let mut tree = look(
        &project,
        &load,
        target,
        images || target != TargetKind::Local,
    )
    .await?;
    if images {
        let facts = images::now(&tree, &topology, &args.image).await?;
        tree = tree.of_images(&facts)?;
    }
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
