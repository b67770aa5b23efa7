//! What containers write.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::stream::{BoxStream, StreamExt, select_all};

use super::ps::{is_one_off, label, name_of};
use super::{Engine, EngineError, labels};

/// Which of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// These services; none: all.
    pub services: Vec<String>,
    /// Go on with what comes, until the containers end.
    pub follow: bool,
    /// The last lines of each container; nothing: all.
    pub tail: Option<usize>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The service.
    pub service: String,
    /// Its container.
    pub container: String,
    /// Where it was written to.
    pub stream: Stream,
    /// The line, without its end; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Engine {
    /// The lines of a project's containers. Lines of one container are in their order.
    ///
    /// # Errors
    /// When the engine does not answer; later as items of the stream.
    pub async fn logs(
        &self,
        project: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let wanted = |service: &str| {
            options.services.is_empty() || options.services.iter().any(|s| s == service)
        };
        let mut streams = Vec::new();
        for container in self.inspected(project).await? {
            let service = label(&container, labels::SERVICE).unwrap_or_default();
            if is_one_off(&container) || !wanted(service) {
                continue;
            }
            let lines = self.lines(service, name_of(&container), options);
            streams.push(lines);
        }
        Ok(select_all(streams).boxed())
    }

    /// The last lines of a container, for a message; none if they can't be had.
    pub(super) async fn last_lines(&self, container: &str, lines: usize) -> Vec<String> {
        let options = LogOptions {
            tail: Some(lines),
            ..LogOptions::default()
        };
        self.lines("", container, &options)
            .filter_map(async |line| line.ok().map(|l| l.text))
            .collect()
            .await
    }

    fn lines(
        &self,
        service: &str,
        container: &str,
        options: &LogOptions,
    ) -> BoxStream<'static, Result<LogLine, EngineError>> {
        let asked = LogsOptions {
            follow: options.follow,
            stdout: true,
            stderr: true,
            tail: options.tail.map_or("all".into(), |n| n.to_string()),
            ..LogsOptions::default()
        };
        let doing = format!("reading the log of {container}");
        let mut partial = Lines {
            service: service.into(),
            container: container.into(),
            pending: [Vec::new(), Vec::new()],
        };
        let output = self.docker.logs(container, Some(asked));
        // The end is an item of its own: a last line may have no end.
        output
            .map(Some)
            .chain(futures_util::stream::iter([None]))
            .flat_map(move |item| {
                let lines = match item {
                    Some(Ok(output)) => partial.take(&output).into_iter().map(Ok).collect(),
                    Some(Err(e)) => vec![Err(EngineError::of(e, doing.clone()))],
                    None => partial.end().into_iter().map(Ok).collect(),
                };
                futures_util::stream::iter(lines)
            })
            .boxed()
    }
}

/// Cuts what comes into lines.
struct Lines {
    service: String,
    container: String,
    /// What has no end yet, of each stream.
    pending: [Vec<u8>; 2],
}

impl Lines {
    fn take(&mut self, output: &LogOutput) -> Vec<LogLine> {
        let stream = match output {
            LogOutput::StdErr { .. } => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        pending.extend_from_slice(output.as_ref());
        let mut out = Vec::new();
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            out.push(self.line(stream, &rest[..end]));
            rest = &rest[end + 1..];
        }
        self.pending[stream as usize] = rest.to_vec();
        out
    }

    fn end(&mut self) -> Vec<LogLine> {
        [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .filter_map(|stream| {
                let pending = std::mem::take(&mut self.pending[stream as usize]);
                (!pending.is_empty()).then(|| self.line(stream, &pending))
            })
            .collect()
    }

    fn line(&self, stream: Stream, bytes: &[u8]) -> LogLine {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        LogLine {
            service: self.service.clone(),
            container: self.container.clone(),
            stream,
            text: String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines {
            service: "s".into(),
            container: "c".into(),
            pending: Default::default(),
        };
        let out = |text: &'static str| LogOutput::StdOut {
            message: text.into(),
        };
        let err = |text: &'static str| LogOutput::StdErr {
            message: text.into(),
        };
        let mut got = Vec::new();
        for output in [out("a\r\nb"), err("e1\n\ne"), out("b\nc"), err("2")] {
            got.extend(lines.take(&output));
        }
        got.extend(lines.end());
        let got: Vec<_> = got.iter().map(|l| (l.stream, l.text.as_str())).collect();
        use Stream::{Stderr, Stdout};
        assert_eq!(
            got,
            [
                (Stdout, "a"),
                (Stderr, "e1"),
                (Stderr, ""),
                (Stdout, "bb"),
                (Stdout, "c"),
                (Stderr, "e2"),
            ]
        );
    }
}
