//! One build on the engine, and what it says.

use std::collections::HashMap;
use std::fmt::Write as _;

use bollard::Docker;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptionsBuilder, BuilderVersion};
use devenv_cluster::pod::docker::sweep::PROJECT;
use devenv_compose::is_disk_full;
use devenv_model::ImageSource;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::context::Context;

/// `ARG`s that every Dockerfile has without naming them, and that change no cached step.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
];
/// So much of what a build said is kept, its end.
const KEPT: usize = 64 << 10;

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailed {
    /// It has no Dockerfile.
    #[error(
        "{origin}: image {image} runs in a container and has no Dockerfile; write one in its `source`, or say where it is: [image.{image}] dockerfile = …"
    )]
    NoDockerfile {
        /// The image.
        image: String,
        /// Where devenv.toml says so.
        origin: devenv_model::Origin,
    },
    /// Its context can't be read.
    #[error("the build context of image {image} can't be read")]
    Context {
        /// The image.
        image: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A step failed, or the engine did.
    #[error("image {image} can't be built: {message}")]
    Failed {
        /// The image.
        image: String,
        /// The step that failed, in the builder's words.
        message: String,
        /// What the build said before.
        output: String,
    },
}

impl BuildFailed {
    pub(super) fn engine(image: &str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        let message = match error {
            Error::DockerResponseServerError { message, .. } => message,
            Error::DockerStreamError { error } => error,
            other => other.to_string(),
        };
        Self::Failed {
            image: image.to_owned(),
            message: explained(message.trim_end()),
            output: String::new(),
        }
    }

    /// What the build said, where it said something.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Failed { output, .. } if !output.is_empty() => Some(output),
            _ => None,
        }
    }
}

/// The engine's words, with what to do where they don't say it.
fn explained(message: &str) -> String {
    if is_disk_full(message) {
        return format!(
            "{message}; see what takes the room with `docker system df`, and free what nothing uses with `docker system prune`"
        );
    }
    message.to_owned()
}

/// Builds the image of `source`, calls it `tag`, and returns its id.
pub(super) async fn run(
    docker: &Docker,
    buildkit: bool,
    (project, tag): (&str, &str),
    source: &ImageSource,
    told: &(dyn Fn(String) + Send + Sync),
) -> Result<String, BuildFailed> {
    let image = &source.name;
    let build = source.container.as_ref();
    let build = build.ok_or_else(|| BuildFailed::NoDockerfile {
        image: image.clone(),
        origin: source.origin.clone(),
    })?;
    let context = Context::of(build).map_err(|source| BuildFailed::Context {
        image: image.clone(),
        source,
    })?;
    let mut args: HashMap<String, String> = PROXIES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    args.extend(build.args.clone());
    let mut options = BuildImageOptionsBuilder::new()
        .dockerfile(context.dockerfile())
        .t(tag)
        .buildargs(&args)
        .labels(&HashMap::from([(PROJECT.to_owned(), project.to_owned())]))
        .rm(true)
        .forcerm(true);
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    let session = uuid::Uuid::new_v4().to_string();
    if buildkit {
        options = options
            .version(BuilderVersion::BuilderBuildKit)
            .session(&session);
    }
    let pieces = context.archive().map_ok(Into::into);
    let body = bollard::body_try_stream(pieces);
    let steps = docker.build_image(options.build(), None, Some(body));
    let id = follow(steps, image, told).await?;
    match id {
        Some(id) => Ok(id),
        None => {
            let found = docker.inspect_image(tag).await;
            let found = found.map_err(|error| BuildFailed::engine(image, error))?;
            Ok(found.id.unwrap_or_else(|| tag.to_owned()))
        }
    }
}

/// Builds what `context` says about a layer over an image of the engine; returns the id of
/// what comes of it, which has no name.
pub(super) async fn lay_over(
    docker: &Docker,
    project: &str,
    source: &ImageSource,
    context: Vec<u8>,
) -> Result<String, BuildFailed> {
    // The builder of before takes an image by its id, and needs no container to copy.
    let options = BuildImageOptionsBuilder::new()
        .dockerfile("Dockerfile")
        .version(BuilderVersion::BuilderV1)
        .labels(&HashMap::from([(PROJECT.to_owned(), project.to_owned())]))
        .rm(true)
        .forcerm(true);
    let body = bollard::body_full(context.into());
    let steps = docker.build_image(options.build(), None, Some(body));
    let id = follow(steps, &source.name, &|_| ()).await?;
    id.ok_or_else(|| BuildFailed::Failed {
        image: source.name.clone(),
        message: "the engine did not say what it made".to_owned(),
        output: String::new(),
    })
}

/// What a build says, until it ends; the id of what it made, where it told.
async fn follow(
    mut steps: impl Stream<Item = Result<BuildInfo, bollard::errors::Error>> + Unpin,
    image: &str,
    told: &(dyn Fn(String) + Send + Sync),
) -> Result<Option<String>, BuildFailed> {
    let mut said = Said::default();
    let mut id = None;
    while let Some(step) = steps.next().await {
        match step {
            Ok(info) => {
                if let Some(BuildInfoAux::Default(made)) = &info.aux {
                    id.clone_from(&made.id);
                }
                said.take(&info, told);
            }
            Err(error) => {
                let mut failed = BuildFailed::engine(image, error);
                if let BuildFailed::Failed { output, .. } = &mut failed {
                    *output = said.text;
                }
                return Err(failed);
            }
        }
    }
    Ok(id)
}

/// What a build says, kept for the case that it fails.
#[derive(Debug, Default)]
struct Said {
    text: String,
    /// Steps that were named.
    named: std::collections::HashSet<String>,
}

impl Said {
    fn take(&mut self, info: &BuildInfo, told: &(dyn Fn(String) + Send + Sync)) {
        if let Some(stream) = &info.stream {
            self.say(stream, told);
        }
        // A base image on its way: each layer, without its hundred progress bars.
        if let Some(status) = &info.status
            && info.progress_detail.is_none()
        {
            let id = info.id.as_deref().map(|id| format!("{id}: "));
            self.say(&format!("{}{status}", id.unwrap_or_default()), told);
        }
        let Some(BuildInfoAux::BuildKit(status)) = &info.aux else {
            return;
        };
        for vertex in &status.vertexes {
            let begins = vertex.started.is_some() && !vertex.name.starts_with("[internal]");
            if begins && self.named.insert(vertex.digest.clone()) {
                let cached = if vertex.cached { " CACHED" } else { "" };
                self.say(&format!("{}{cached}", vertex.name), told);
            }
        }
        for log in &status.logs {
            self.say(&String::from_utf8_lossy(&log.msg), told);
        }
    }

    fn say(&mut self, text: &str, told: &(dyn Fn(String) + Send + Sync)) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(self.text, "{line}");
            told(line.to_owned());
        }
        if self.text.len() > 2 * KEPT {
            let mut from = self.text.len() - KEPT;
            while !self.text.is_char_boundary(from) {
                from += 1;
            }
            self.text.drain(..from);
        }
    }
}
