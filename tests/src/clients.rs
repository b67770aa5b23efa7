//! Clients that are not ours: npm's socket.io-client, PyPI's python-socketio,
//! Chromium.

use crate::environments;
use crate::project::checkout;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use thirtyfour::{CapabilitiesHelper, ChromiumLikeCapabilities, DesiredCapabilities, WebDriver};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The npm client's program, with its packages installed as its lock file says.
///
/// # Errors
/// What npm said.
pub async fn node_client() -> Result<PathBuf, String> {
    let folder = checkout().join("tests/clients/node");
    environments::node(&folder).await?;
    Ok(folder.join("client.mjs"))
}

/// A Python with the client's pinned packages, and the client's program.
///
/// # Errors
/// What uv, venv or pip said.
pub async fn python_client() -> Result<(PathBuf, PathBuf), String> {
    let folder = checkout().join("tests/clients/python");
    let python = environments::python(&folder.join("requirements.txt")).await?;
    Ok((python, folder.join("client.py")))
}

/// A Chromium driven by chromedriver, with an empty profile.
#[derive(Debug)]
pub struct Browser {
    pub driver: WebDriver,
    /// Killed when this is dropped.
    chromedriver: Child,
    base: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts both; chromedriver picks a free port and says which.
    ///
    /// # Errors
    /// Whatever kept them from starting.
    pub async fn start(width: u32, height: u32) -> Result<Self, String> {
        let program = crate::find_tool("chromedriver").ok_or("there is no chromedriver")?;
        let mut chromedriver = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("chromedriver: {error}"))?;
        let output = chromedriver
            .stdout
            .take()
            .ok_or("chromedriver has no output")?;
        let mut lines = BufReader::new(output).lines();
        let port = tokio::time::timeout(Duration::from_secs(20), async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, rest)) = line.split_once("successfully on port ") {
                    return rest.trim_end_matches('.').parse::<u16>().ok();
                }
            }
            None
        })
        .await
        .ok()
        .flatten()
        .ok_or("chromedriver did not say its port")?;
        // Its later lines must not fill the pipe and stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let profile = tempfile::Builder::new()
            .prefix("bb-chromium-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--lang=en-US".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ] {
            capabilities
                .add_arg(&argument)
                .map_err(|error| error.to_string())?;
        }
        capabilities
            .set("goog:loggingPrefs", serde_json::json!({ "browser": "ALL" }))
            .map_err(|error| error.to_string())?;
        let base = format!("http://127.0.0.1:{port}");
        let driver = WebDriver::new(&base, capabilities)
            .await
            .map_err(|error| format!("chromium: {error}"))?;
        Ok(Self {
            driver,
            chromedriver,
            base,
            _profile: profile,
        })
    }

    /// What the page wrote to its console since the last call, with level SEVERE:
    /// errors, uncaught exceptions, resources that were not there.
    ///
    /// # Errors
    /// Whatever chromedriver said.
    pub async fn console_errors(&self) -> Result<Vec<String>, String> {
        let url = format!("{}/session/{}/se/log", self.base, self.driver.session_id());
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        let answer: serde_json::Value = client
            .post(url)
            .json(&serde_json::json!({ "type": "browser" }))
            .send()
            .await
            .map_err(|error| error.to_string())?
            .json()
            .await
            .map_err(|error| error.to_string())?;
        let entries = answer["value"]
            .as_array()
            .ok_or_else(|| format!("no log: {answer}"))?;
        Ok(entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect())
    }

    /// Ends the browser and its driver.
    pub async fn quit(mut self) {
        let _ = self.driver.clone().quit().await;
        let _ = self.chromedriver.start_kill();
        let _ = self.chromedriver.wait().await;
    }
}
