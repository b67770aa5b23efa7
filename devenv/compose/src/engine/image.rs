//! Images: there, or pulled.

use bollard::errors::Error as Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptions;
use futures_util::TryStreamExt;

use super::error::{is_disk_full, is_not_found, said};
use super::{Engine, EngineError, Progress, Told};
use crate::project::{PullPolicy, Service};

impl Engine {
    /// The image of a service, pulled where its policy says so.
    pub(super) async fn image(
        &self,
        service: &Service,
        told: Told<'_>,
    ) -> Result<ImageInspect, EngineError> {
        let absent = |why: Option<String>| EngineError::NoImage {
            service: service.name.clone(),
            image: service.image.clone(),
            origin: service.origin.clone(),
            why,
        };
        if service.pull_policy != PullPolicy::Always
            && let Some(image) = self.local_image(&service.image).await?
        {
            return Ok(image);
        }
        if service.pull_policy == PullPolicy::Never {
            return Err(absent(None));
        }
        match self.pull(&service.image, told).await.map_err(said) {
            Ok(()) => {}
            Err(Ok((_, message))) if is_disk_full(&message) => {
                return Err(EngineError::DiskFull { message });
            }
            Err(Ok((_, message))) => return Err(absent(Some(message))),
            Err(Err(source)) => {
                return Err(EngineError::Lost {
                    doing: format!("pulling {}", service.image),
                    source,
                });
            }
        }
        let image = self.local_image(&service.image).await?;
        image.ok_or_else(|| absent(Some("it was pulled and is not there".into())))
    }

    async fn local_image(&self, image: &str) -> Result<Option<ImageInspect>, EngineError> {
        match self.docker.inspect_image(image).await {
            Ok(image) => Ok(Some(image)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(EngineError::of(e, format!("looking for the image {image}"))),
        }
    }

    async fn pull(&self, image: &str, told: Told<'_>) -> Result<(), Docker> {
        told(Progress::Pulling {
            image: image.into(),
        });
        let (name, tag) = name_and_tag(image);
        let options = CreateImageOptions {
            from_image: Some(name.into()),
            tag: tag.map(Into::into),
            ..CreateImageOptions::default()
        };
        let mut steps = Box::pin(self.docker.create_image(Some(options), None, None));
        while let Some(step) = steps.try_next().await? {
            if let Some(status) = step.status {
                told(Progress::PullStep {
                    image: image.into(),
                    status,
                });
            }
        }
        Ok(())
    }
}

/// An image without a tag or digest is `latest`: the engine would pull all of its tags.
fn name_and_tag(image: &str) -> (&str, Option<&str>) {
    if image.contains('@') {
        return (image, None);
    }
    match image.rsplit_once(':') {
        // A port of a registry is no tag.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, Some("latest")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("mysql", ("mysql", Some("latest")))]
    #[case("mysql:8.4", ("mysql", Some("8.4")))]
    #[case("localhost:5000/a/b", ("localhost:5000/a/b", Some("latest")))]
    #[case("localhost:5000/a:1", ("localhost:5000/a", Some("1")))]
    #[case("a@sha256:00", ("a@sha256:00", None))]
    fn references(#[case] image: &str, #[case] want: (&str, Option<&str>)) {
        assert_eq!(super::name_and_tag(image), want);
    }
}
