//! Images into a node: only the layers that its containerd lacks travel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use futures_util::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::cluster::Node;
use super::error::KindError;
use super::oci::Image;

/// The namespace of the kubelet's images.
const CTR: [&str; 3] = ["ctr", "--namespace", "k8s.io"];
/// So much is on its way at once.
const PIECE: usize = 1 << 20;

/// What an exec in a node came to.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended with 0.
    pub ok: bool,
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
}

/// Runs a program in a node, with what `input` sends as its stdin.
///
/// # Errors
/// What the engine says.
pub async fn exec(
    docker: &Docker,
    node: &str,
    argv: &[&str],
    input: Option<mpsc::Receiver<Vec<u8>>>,
) -> Result<Ran, bollard::errors::Error> {
    let options = CreateExecOptions {
        cmd: Some(argv.iter().map(|s| (*s).to_owned()).collect()),
        attach_stdin: Some(input.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let id = docker.create_exec(node, options).await?.id;
    let mut ran = Ran {
        ok: false,
        out: String::new(),
        err: String::new(),
    };
    if let StartExecResults::Attached {
        mut output,
        input: mut stdin,
    } = docker.start_exec(&id, None).await?
    {
        let feed = async {
            if let Some(mut pieces) = input {
                while let Some(piece) = pieces.recv().await {
                    // Its end says why it did not want more.
                    if stdin.write_all(&piece).await.is_err() {
                        break;
                    }
                }
            }
            let _ = stdin.shutdown().await;
        };
        let read = async {
            while let Some(piece) = output.try_next().await? {
                match piece {
                    LogOutput::StdErr { message } => {
                        ran.err.push_str(&String::from_utf8_lossy(&message));
                    }
                    other => ran
                        .out
                        .push_str(&String::from_utf8_lossy(&other.into_bytes())),
                }
            }
            Ok::<_, bollard::errors::Error>(())
        };
        // What it says is read while it is fed: neither waits for the other.
        let ((), read) = tokio::join!(feed, read);
        read?;
    }
    let ended = docker.inspect_exec(&id).await?;
    ran.ok = ended.exit_code == Some(0);
    Ok(ran)
}

/// The digests of the blobs that a node has.
async fn there(docker: &Docker, node: &Node) -> Result<BTreeSet<String>, bollard::errors::Error> {
    let argv: Vec<&str> = CTR.into_iter().chain(["content", "ls", "-q"]).collect();
    let ran = exec(docker, &node.id, &argv, None).await?;
    Ok(ran.out.split_whitespace().map(str::to_owned).collect())
}

/// Whether a node has an image of this name.
///
/// # Errors
/// What the engine says.
pub async fn has(docker: &Docker, node: &Node, name: &str) -> Result<bool, bollard::errors::Error> {
    let filter = format!("name=={name}");
    let argv = CTR.into_iter().chain(["images", "ls", "-q", &filter]);
    let ran = exec(docker, &node.id, &argv.collect::<Vec<_>>(), None).await?;
    Ok(ran.out.split_whitespace().any(|found| found == name))
}

/// An image of the engine, and what it is called on the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its name there.
    pub name: String,
}

/// Brings images of the engine into every node that lacks them. All are asked for at once:
/// what they have in common the engine puts together once.
///
/// # Errors
/// [`KindError::Load`].
pub async fn from_engine(
    docker: &Docker,
    nodes: &[Node],
    images: &[Wanted],
) -> Result<(), KindError> {
    let failed = |node: &Node, image: &Wanted, reason: String| KindError::Load {
        image: image.name.clone(),
        node: node.name.clone(),
        reason,
    };
    let mut missing: Vec<(&Wanted, Vec<&Node>)> = Vec::new();
    for image in images {
        let mut lacking = Vec::new();
        for node in nodes {
            let has = has(docker, node, &image.name).await;
            if !has.map_err(|e| failed(node, image, e.to_string()))? {
                lacking.push(node);
            }
        }
        if !lacking.is_empty() {
            missing.push((image, lacking));
        }
    }
    let Some((first, lacking)) = missing.first() else {
        return Ok(());
    };
    let ids: Vec<String> = missing.iter().map(|(image, _)| image.id.clone()).collect();
    let saved = save(docker, &ids).await;
    let (file, contents) = saved.map_err(|e| failed(lacking[0], first, e.to_string()))?;
    // One after the other: each finds on the node what those before it have brought.
    for ((image, lacking), content) in missing.into_iter().zip(&contents) {
        for node in lacking {
            let sent = import(docker, node, &file, content, &image.name).await;
            let sent = sent.map_err(|reason| failed(node, image, reason))?;
            tracing::debug!(image = image.name, bytes = sent, "an image was brought");
        }
    }
    Ok(())
}

/// Images as the engine saves them, in a file that has no name.
async fn save(docker: &Docker, ids: &[String]) -> io::Result<(File, Vec<Image>)> {
    let file = tempfile::tempfile()?;
    let out = tokio::fs::File::from_std(file.try_clone()?);
    let mut out = tokio::io::BufWriter::with_capacity(PIECE, out);
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut pieces = std::pin::pin!(docker.export_images(&names));
    while let Some(piece) = pieces.try_next().await.map_err(io::Error::other)? {
        out.write_all(&piece).await?;
    }
    out.flush().await?;
    let ids = ids.to_vec();
    let read = move || {
        let mut file = file;
        let images = Image::saved(&mut file, &ids)?;
        Ok((file, images))
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

/// Brings an image, whose layers lie in `layers`, into a node; returns how many bytes of them
/// travelled.
///
/// # Errors
/// What the node said.
pub async fn import(
    docker: &Docker,
    node: &Node,
    layers: &File,
    image: &Image,
    name: &str,
) -> Result<u64, String> {
    let known = there(docker, node).await.map_err(|e| e.to_string())?;
    let first = send(docker, node, layers, image, name, &known).await;
    match first {
        // Its garbage collector may have taken what was there a moment ago.
        Err(reason) if !known.is_empty() && !reason.contains("no space left") => {
            tracing::debug!(reason, name, "the image is sent whole");
            send(docker, node, layers, image, name, &BTreeSet::new()).await
        }
        other => other,
    }
}

async fn send(
    docker: &Docker,
    node: &Node,
    layers: &File,
    image: &Image,
    name: &str,
    known: &BTreeSet<String>,
) -> Result<u64, String> {
    let argv = CTR.into_iter().chain(["images", "import", "-"]);
    let argv: Vec<&str> = argv.collect();
    let (pieces_tx, pieces_rx) = mpsc::channel(4);
    let layers = layers.try_clone().map_err(|e| e.to_string())?;
    let write = tokio::task::spawn_blocking({
        let (image, name, known) = (image.clone(), name.to_owned(), known.clone());
        move || {
            let mut layers = layers;
            let mut out = BufWriter::with_capacity(PIECE, Pieces(pieces_tx));
            image.write(&name, &known, &mut layers, &mut out)
        }
    });
    let ran = exec(docker, &node.id, &argv, Some(pieces_rx)).await;
    let written = write.await.map_err(|e| e.to_string())?;
    let ran = ran.map_err(|e| e.to_string())?;
    // What the node says is why it was not all written.
    match [ran.err.trim(), ran.out.trim()]
        .into_iter()
        .find(|s| !s.is_empty())
    {
        Some(said) if !ran.ok => Err(said.to_owned()),
        _ => written.map_err(|e| e.to_string()),
    }
}

/// Gives what is written to an exec's stdin.
struct Pieces(mpsc::Sender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(data.to_vec());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
