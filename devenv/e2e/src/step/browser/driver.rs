//! Chromium and chromedriver, each in a process group of its own that ends with the
//! test, and with devenv, however that ends.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::future::BoxFuture;
use thirtyfour::{
    By, CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver,
    WebElement, error::WebDriverErrorInner, prelude::WebDriverError,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::step::program::Group;

/// How they are called, the usual name first.
const CHROMIUM: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
const CHROMEDRIVER: [&str; 1] = ["chromedriver"];
const INSTALL: &str = "apt-get install chromium chromium-driver";

/// How long either may take to start.
const STARTING: Duration = Duration::from_secs(30);

/// Between two looks at the page.
const EVERY: Duration = Duration::from_millis(50);

/// Of the last lines that a program printed before it ended.
const KEPT_LINES: usize = 5;

/// Why there is no browser; never the fault of the system under test.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// A program is not installed.
    #[error("{what} is not installed: {INSTALL}")]
    NotInstalled {
        /// Which.
        what: &'static str,
    },
    /// A program did not start.
    #[error("{program} did not start: {why}")]
    Failed {
        /// Which.
        program: String,
        /// What it said.
        why: String,
    },
}

/// The browser and its driver.
#[derive(Debug)]
pub(super) struct Programs {
    /// Chromium, or Chrome.
    pub(super) chromium: PathBuf,
    /// chromedriver.
    pub(super) chromedriver: PathBuf,
}

impl Programs {
    /// Those in a `PATH`.
    pub(super) fn find(path: &std::ffi::OsStr) -> Result<Self, StartError> {
        let find = |names: &[&str], what| {
            let folders: Vec<_> = std::env::split_paths(path).collect();
            // The first name that is anywhere, as the shell would find it.
            names
                .iter()
                .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
                .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
                .ok_or(StartError::NotInstalled { what })
        };
        Ok(Self {
            chromium: find(&CHROMIUM, "chromium")?,
            chromedriver: find(&CHROMEDRIVER, "chromedriver")?,
        })
    }
}

/// What a look at the page gives: what was looked for, or what there is instead.
pub(super) type Look<T> = Result<Result<T, String>, WebDriverError>;

/// A running browser with one window.
pub(super) struct Browser {
    driver: Option<WebDriver>,
    chromium: Process,
    chromedriver: Process,
    /// Chromium's home, with nothing of a person's in it.
    profile: tempfile::TempDir,
    language: String,
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser")
            .field("profile", &self.profile.path())
            .finish_non_exhaustive()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The processes end with their groups; there is nothing to say goodbye to.
        if let Some(driver) = self.driver.take() {
            let _ = driver.leak();
        }
    }
}

impl Browser {
    /// Starts both, with a window of this size in CSS pixels and this language.
    pub(super) async fn start(
        programs: &Programs,
        window: [u32; 2],
        language: &str,
    ) -> Result<Self, StartError> {
        let failed = |program: &Path, why: String| StartError::Failed {
            program: program.display().to_string(),
            why,
        };
        let profile = tempfile::Builder::new()
            .prefix("devenv-chromium-")
            .tempdir()
            .map_err(|e| failed(&programs.chromium, e.to_string()))?;
        let mut command = Command::new(&programs.chromium);
        command
            .args(arguments(profile.path(), window, language))
            // Whatever it keeps besides the profile is to go with it.
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path())
            .env("XDG_DATA_HOME", profile.path())
            .env("LANGUAGE", language)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let chromium = Process::start(
            command,
            profile.path(),
            |child| child.stderr.take(),
            debugging_port,
        );
        let mut command = Command::new(&programs.chromedriver);
        command
            .arg("--port=0")
            .env("TMPDIR", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let chromedriver = Process::start(
            command,
            profile.path(),
            |child| child.stdout.take(),
            webdriver_port,
        );
        let (chromium, chromedriver) = tokio::join!(chromium, chromedriver);
        let (chromium, debugging) = chromium.map_err(|why| failed(&programs.chromium, why))?;
        let (chromedriver, port) =
            chromedriver.map_err(|why| failed(&programs.chromedriver, why))?;

        let session = session(debugging, port);
        let driver = match timeout(STARTING, session).await {
            Ok(Ok(driver)) => driver,
            Ok(Err(error)) => return Err(failed(&programs.chromedriver, words(&error))),
            Err(_) => {
                let why = format!("no session within {STARTING:?}");
                return Err(failed(&programs.chromedriver, why));
            }
        };
        Ok(Self {
            driver: Some(driver),
            chromium,
            chromedriver,
            profile,
            language: language.to_owned(),
        })
    }

    /// The folder that all it keeps is in.
    #[cfg(test)]
    pub(super) fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// As it was started with.
    pub(super) fn language(&self) -> &str {
        &self.language
    }

    pub(super) fn driver(&self) -> &WebDriver {
        // It is taken out by `drop` only.
        self.driver.as_ref().unwrap_or_else(|| unreachable!())
    }

    /// Ends both and removes what they kept.
    pub(super) async fn close(mut self) {
        if let Some(driver) = self.driver.take() {
            let _ = driver.leak();
        }
        self.chromedriver.end().await;
        self.chromium.end().await;
        // Its children may write for a moment yet. What is left then is for `TempDir`.
        for _ in 0..50 {
            match tokio::fs::remove_dir_all(self.profile.path()).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => sleep(EVERY / 2).await,
                _ => break,
            }
        }
    }

    /// Goes to an address and waits until the page is loaded.
    pub(super) async fn open(&self, url: &str, within: Duration) -> Result<(), WebDriverError> {
        self.driver().set_page_load_timeout(within).await?;
        self.driver().goto(url).await
    }

    /// Of what the window really shows.
    pub(super) async fn address(&self) -> Result<String, WebDriverError> {
        let script = "return document.URL";
        self.driver().execute(script, Vec::new()).await?.convert()
    }

    /// Gives the window another size in CSS pixels.
    pub(super) async fn resize(&self, [width, height]: [u32; 2]) -> Result<(), WebDriverError> {
        self.driver().set_window_rect(0, 0, width, height).await
    }

    /// Errors that the console has shown since the last call: messages of level error,
    /// exceptions that nobody caught, resources that could not be had.
    pub(super) async fn console_errors(&self) -> Result<Vec<String>, WebDriverError> {
        let entries = self.driver().browser_log().await?;
        Ok(entries
            .into_iter()
            .filter(|entry| entry.level == "SEVERE")
            .map(|entry| entry.message)
            .collect())
    }

    /// Everything that a selector finds.
    pub(super) async fn all(&self, css: &str) -> Result<Vec<WebElement>, WebDriverError> {
        self.driver().find_all(By::Css(css.to_owned())).await
    }

    /// The first element of a selector that can be seen and used; `Err` is what there is
    /// instead.
    pub(super) async fn usable(&self, css: &str) -> Look<WebElement> {
        let mut why = "nothing that it finds";
        for element in self.all(css).await? {
            if !element.is_displayed().await? {
                why = "one that can't be seen";
            } else if element.is_enabled().await? {
                return Ok(Ok(element));
            } else {
                why = "one that is disabled";
                break;
            }
        }
        Ok(Err(why.to_owned()))
    }

    /// What can be read in the elements of a selector.
    pub(super) async fn text(&self, css: &str) -> Result<Vec<String>, WebDriverError> {
        let mut texts = Vec::new();
        for element in self.all(css).await? {
            if element.is_displayed().await? {
                texts.push(squeeze(&element.text().await?));
            }
        }
        Ok(texts)
    }

    /// Looks again until it is `Ok` or the time is up; gives the last look's reason then.
    /// The first look is always finished, so that there is one on a slow machine as well.
    /// An element that goes away while it is looked at is a reason to look again.
    pub(super) async fn until<'a, T>(
        &self,
        deadline: Instant,
        look: impl Fn() -> BoxFuture<'a, Look<T>>,
    ) -> Look<T> {
        let mut looked = Ok(look().await);
        let mut last = String::new();
        loop {
            match looked {
                Ok(Ok(Ok(found))) => return Ok(Ok(found)),
                Ok(Ok(Err(why))) => last = why,
                Ok(Err(error)) if passing(&error) => last = words(&error),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(Err(last)),
            }
            if Instant::now() + EVERY >= deadline {
                return Ok(Err(last));
            }
            sleep(EVERY).await;
            looked = timeout_at(deadline, look()).await;
        }
    }
}

/// chromedriver's session with a Chromium that runs already.
async fn session(debugging: u16, port: u16) -> Result<WebDriver, WebDriverError> {
    let mut capabilities = DesiredCapabilities::chrome();
    capabilities.add_experimental_option("debuggerAddress", format!("127.0.0.1:{debugging}"))?;
    capabilities.set("goog:loggingPrefs", serde_json::json!({ "browser": "ALL" }))?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|e| WebDriverError::from_inner(WebDriverErrorInner::HttpError(e.to_string())))?;
    let driver = WebDriver::builder(format!("http://127.0.0.1:{port}"), capabilities)
        .client(client)
        .await?;
    Ok(driver)
}

fn arguments(profile: &Path, [width, height]: [u32; 2], language: &str) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--headless",
        "--remote-debugging-port=0",
        "--enable-automation",
        "--disable-background-networking",
        "--disable-breakpad",
        "--disable-component-update",
        "--disable-crash-reporter",
        "--disable-default-apps",
        // Its place is small in containers.
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--disable-sync",
        "--no-default-browser-check",
        "--no-first-run",
        "--no-proxy-server",
        "--password-store=basic",
    ]
    .map(str::to_owned)
    .into();
    if nix::unistd::geteuid().is_root() {
        // It refuses to run as root with one.
        arguments.push("--no-sandbox".to_owned());
    }
    arguments.extend([
        format!("--lang={language}"),
        format!("--accept-lang={language}"),
        format!("--window-size={width},{height}"),
        format!("--user-data-dir={}", profile.display()),
        "about:blank".to_owned(),
    ]);
    arguments
}

/// A program that has said on which port it listens.
struct Process {
    child: Child,
    /// Nothing once it has ended.
    group: Option<Group>,
}

impl Process {
    /// Starts it; `port` finds the port in a line of its output.
    async fn start<R: AsyncRead + Unpin + Send + 'static>(
        mut command: Command,
        leftover: &Path,
        output: fn(&mut Child) -> Option<R>,
        port: fn(&str) -> Option<u16>,
    ) -> Result<(Self, u16), String> {
        command.stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let group = Group::guard(&child, Some(leftover))
            .await
            .map_err(|e| e.to_string())?;
        let output = output(&mut child);
        let mut process = Self {
            child,
            group: Some(group),
        };
        let Some(output) = output else {
            return Err("it has no output".to_owned());
        };
        let mut lines = BufReader::new(output).lines();
        let mut said = VecDeque::new();
        let found = timeout(STARTING, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(port) = port(&line) {
                    return Ok(port);
                }
                said.push_back(line);
                if said.len() > KEPT_LINES {
                    said.pop_front();
                }
            }
            Err("it ended before it listened".to_owned())
        });
        let found = found.await;
        match found.unwrap_or_else(|_| Err(format!("it did not listen within {STARTING:?}"))) {
            Ok(port) => {
                // Its later lines must not fill the pipe and stop it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok((process, port))
            }
            Err(why) => {
                process.end().await;
                let said: Vec<_> = said.iter().map(String::as_str).collect();
                Err([&[why.as_str()], said.as_slice()].concat().join("\n"))
            }
        }
    }

    async fn end(&mut self) {
        if let Some(group) = self.group.take() {
            group.end().await;
        }
        let _ = self.child.wait().await;
    }
}

/// `DevTools listening on ws://127.0.0.1:1234/devtools/…`
fn debugging_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("DevTools listening on ws://")?;
    let (_, port) = rest.split('/').next()?.rsplit_once(':')?;
    port.parse().ok()
}

/// `ChromeDriver was started successfully on port 1234.`
fn webdriver_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("successfully on port ")?;
    rest.trim().trim_end_matches('.').parse().ok()
}

/// Whether a page that changes explains it, so that the next look may be fine.
fn passing(error: &WebDriverError) -> bool {
    matches!(
        error.as_inner(),
        WebDriverErrorInner::StaleElementReference(_)
            | WebDriverErrorInner::NoSuchElement(_)
            | WebDriverErrorInner::ElementClickIntercepted(_)
            | WebDriverErrorInner::ElementNotInteractable(_)
            | WebDriverErrorInner::MoveTargetOutOfBounds(_)
    )
}

/// With one space between words, as texts are compared.
pub(super) fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first line of an error; chromedriver adds its own stack to it.
pub(super) fn words(error: &WebDriverError) -> String {
    let text = match error.as_inner() {
        WebDriverErrorInner::SessionNotCreated(info)
        | WebDriverErrorInner::JavascriptError(info)
        | WebDriverErrorInner::UnknownError(info)
        | WebDriverErrorInner::WebDriverTimeout(info)
        | WebDriverErrorInner::InvalidSelector(info)
        | WebDriverErrorInner::ElementNotInteractable(info)
        | WebDriverErrorInner::ElementClickIntercepted(info) => info.value.message.clone(),
        _ => error.to_string(),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}
