//! A browser for a test.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use regex::Regex;
use serde_json::Value;
use thirtyfour::prelude::WebDriverError;
use tokio::time::Instant;

use super::{Context, Session, StepResult, file_safe};
use crate::{
    capture::Answer,
    expect::check_json,
    matcher::shortened,
    outcome::Mismatch,
    suite::spec::{BrowserSpec, Expect, TypeSpec},
};
use driver::{Browser, Programs, StartError, squeeze, words};

mod driver;

#[cfg(test)]
mod tests;

const WINDOW: [u32; 2] = [1280, 900];
const LANGUAGE: &str = "en";
const WITHIN: Duration = Duration::from_secs(10);
/// What is shown of a page's text.
const SHOWN: usize = 2000;
/// There is one for each test.
const NAME: &str = "browser";
/// How long a picture may take when something is wrong already.
const PICTURE: Duration = Duration::from_secs(5);

/// Does one thing in the test's browser, which the first `open` starts. Errors of the
/// console since the step before are mismatches of whatever kind of step comes next.
pub async fn run(spec: &BrowserSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let mut allowed = Vec::new();
    for pattern in &spec.allow_console {
        match Regex::new(pattern.as_str()) {
            Ok(regex) => allowed.push(regex),
            Err(error) => {
                let got = format!("{pattern}: {error}");
                return StepResult::failed("allow_console", "regular expressions", got);
            }
        }
    }
    if let Some(url) = &spec.open
        && let Err(stopped) = start(spec, url.as_str(), context).await
    {
        return *stopped;
    }
    let (run_dir, label) = (context.run_dir.clone(), context.label.clone());
    let Some(browser) = context.sessions.get::<Browser>(NAME) else {
        return StepResult::failed(
            "browser",
            "one that an earlier step of this test opened",
            "none: begin with browser = { open = \"…\" }",
        );
    };
    let page = Page {
        browser,
        within: spec.for_.map_or(WITHIN, Duration::from),
        expect,
        run_dir: &run_dir,
        label: &label,
    };
    let mut result = match page.act(spec).await {
        Ok(result) => result,
        Err(error) => StepResult::failed("browser", "an answer", words(&error)),
    };
    match browser.console_errors().await {
        Ok(errors) => {
            let wrong = errors
                .into_iter()
                .filter(|error| !allowed.iter().any(|regex| regex.is_match(error)));
            result.mismatches.extend(wrong.map(|error| Mismatch {
                what: "console".into(),
                expected: "no errors".into(),
                got: shortened(&error, SHOWN),
            }));
        }
        Err(error) => result.mismatches.push(Mismatch {
            what: "console".into(),
            expected: "its messages".into(),
            got: words(&error),
        }),
    }
    result
}

/// Makes sure that the test has its browser.
async fn start(
    spec: &BrowserSpec,
    url: &str,
    context: &mut Context,
) -> Result<(), Box<StepResult>> {
    let language = spec.language.as_ref().map(|text| text.as_str());
    if let Some(browser) = context.sessions.get::<Browser>(NAME) {
        if let Some(language) = language.filter(|language| *language != browser.language()) {
            let got = format!("{language}, while it runs in {}", browser.language());
            let expected = "the one that the browser was started with";
            return Err(Box::new(StepResult::failed("language", expected, got)));
        }
        if let Some(window) = spec.window {
            (browser.resize(window).await)
                .map_err(|e| StepResult::failed("window", "one of this size", words(&e)))?;
        }
        return Ok(());
    }
    if let Some(language) = language
        && !language
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ','))
    {
        let expected = "a language such as es or en-US";
        return Err(Box::new(StepResult::failed("language", expected, language)));
    }
    let missing = |error: StartError| StepResult::missing(format!("no browser for {url}: {error}"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = Programs::find(&path).map_err(missing)?;
    let window = spec.window.unwrap_or(WINDOW);
    let browser = Browser::start(&programs, window, language.unwrap_or(LANGUAGE))
        .await
        .map_err(missing)?;
    context.sessions.insert(NAME, browser);
    Ok(())
}

#[async_trait]
impl Session for Browser {
    async fn close(self: Box<Self>) {
        Browser::close(*self).await;
    }

    async fn picture(&mut self, dir: &Path, label: &str) -> Option<PathBuf> {
        let taking = screenshot(self, dir, label, "failed");
        tokio::time::timeout(PICTURE, taking).await.ok()?.ok()
    }
}

/// Takes a picture of what the window shows; the path is relative to the run's folder.
async fn screenshot(
    browser: &Browser,
    run_dir: &Path,
    label: &str,
    name: &str,
) -> Result<PathBuf, String> {
    let png = (browser.driver().screenshot_as_png().await).map_err(|e| words(&e))?;
    let folder = Path::new("screenshots");
    let file = folder.join(format!("{}.{}.png", file_safe(label), file_safe(name)));
    let write = async {
        tokio::fs::create_dir_all(run_dir.join(folder)).await?;
        tokio::fs::write(run_dir.join(&file), png).await
    };
    match write.await {
        Ok(()) => Ok(file),
        Err(error) => Err(format!("{}: {error}", run_dir.join(&file).display())),
    }
}

/// What a step needs once there is a browser.
struct Page<'a> {
    browser: &'a Browser,
    within: Duration,
    expect: &'a Expect,
    run_dir: &'a Path,
    label: &'a str,
}

impl Page<'_> {
    async fn act(&self, spec: &BrowserSpec) -> Result<StepResult, WebDriverError> {
        let scope = spec.within.as_ref().map(|css| css.as_str());
        if let Some(url) = &spec.open {
            self.open(url.as_str()).await
        } else if let Some(css) = &spec.click {
            self.click(css.as_str()).await
        } else if let Some(type_) = &spec.type_ {
            self.type_(type_).await
        } else if let Some(text) = &spec.see {
            self.see(text.as_str(), scope, true).await
        } else if let Some(text) = &spec.gone {
            self.see(text.as_str(), scope, false).await
        } else if let Some(css) = &spec.count {
            self.count(css.as_str()).await
        } else if let Some(name) = &spec.screenshot {
            let taken = screenshot(self.browser, self.run_dir, self.label, name.as_str()).await;
            Ok(match taken {
                Ok(file) => StepResult {
                    screenshots: vec![file],
                    ..StepResult::default()
                },
                Err(why) => StepResult::failed("screenshot", "a picture", why),
            })
        } else if let Some(script) = &spec.script {
            self.script(script.as_str()).await
        } else {
            Ok(StepResult::failed("browser", "something to do", "nothing"))
        }
    }

    async fn open(&self, url: &str) -> Result<StepResult, WebDriverError> {
        let expected = format!("{url} within {:?}", self.within);
        if let Err(error) = self.browser.open(url, self.within).await {
            return Ok(StepResult::failed("page", expected, words(&error)));
        }
        // Of some failures chromedriver says nothing, and the browser shows a page of its
        // own about them.
        if self.browser.address().await?.starts_with("chrome-error:") {
            let got = "its own page about an error of the browser";
            return Ok(StepResult {
                seen: self.shown().await,
                ..StepResult::failed("page", expected, got)
            });
        }
        Ok(StepResult {
            seen: Some(self.browser.driver().title().await?),
            ..StepResult::default()
        })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.within
    }

    /// A mismatch with what was there until the time was up.
    async fn not_in_time(&self, what: &str, expected: &str, got: String) -> StepResult {
        let expected = format!("{expected} within {:?}", self.within);
        StepResult {
            seen: self.shown().await,
            ..StepResult::failed(what, expected, got)
        }
    }

    /// What the page says, for people.
    async fn shown(&self) -> Option<String> {
        let texts = self.browser.text("body").await.ok()?;
        Some(format!(
            "the page says: {}",
            shortened(&texts.join(" "), SHOWN)
        ))
    }

    async fn click(&self, css: &str) -> Result<StepResult, WebDriverError> {
        let look = move || {
            let look = async move {
                Ok(match self.browser.usable(css).await? {
                    Ok(element) => Ok(element.click().await?),
                    Err(why) => Err(why),
                })
            };
            look.boxed()
        };
        Ok(match self.browser.until(self.deadline(), look).await? {
            Ok(()) => StepResult::default(),
            Err(why) => self.not_in_time(css, "something to click", why).await,
        })
    }

    /// Text in place of what is in the field.
    async fn type_(&self, type_: &TypeSpec) -> Result<StepResult, WebDriverError> {
        let css = type_.into.as_str();
        let look = move || {
            let look = async move {
                Ok(match self.browser.usable(css).await? {
                    Ok(element) => {
                        element.clear().await?;
                        Ok(element.send_keys(type_.text.as_str()).await?)
                    }
                    Err(why) => Err(why),
                })
            };
            look.boxed()
        };
        Ok(match self.browser.until(self.deadline(), look).await? {
            Ok(()) => StepResult::default(),
            Err(why) => self.not_in_time(css, "something to type into", why).await,
        })
    }

    /// Waits until a text can be seen, or can't any more.
    async fn see(
        &self,
        text: &str,
        scope: Option<&str>,
        wanted: bool,
    ) -> Result<StepResult, WebDriverError> {
        let css = scope.unwrap_or("body");
        let text = squeeze(text);
        let text = text.as_str();
        let look = move || {
            let look = async move {
                let texts = self.browser.text(css).await?;
                let there = texts.iter().find(|there| there.contains(text));
                Ok(match (there, wanted) {
                    (Some(_), true) | (None, false) => Ok(()),
                    (Some(there), false) => Err(shortened(there, SHOWN)),
                    (None, true) if texts.is_empty() => Err(format!("no {css} that can be seen")),
                    (None, true) => Err(shortened(&texts.join("\n"), SHOWN)),
                })
            };
            look.boxed()
        };
        let place = scope.map(|css| format!(" in {css}")).unwrap_or_default();
        Ok(match self.browser.until(self.deadline(), look).await? {
            Ok(()) => StepResult::default(),
            Err(got) => {
                let not = if wanted { "" } else { "no " };
                let expected = format!("{not}{text:?}{place} within {:?}", self.within);
                StepResult::failed("text", expected, got)
            }
        })
    }

    /// Counts until the number is as expected.
    async fn count(&self, css: &str) -> Result<StepResult, WebDriverError> {
        let last = AtomicUsize::new(0);
        let last = &last;
        let look = move || {
            let look = async move {
                let n = self.browser.all(css).await?.len();
                last.store(n, Ordering::Relaxed);
                let fits = check_json(self.expect, Some(&Value::from(n))).is_empty();
                Ok(if fits { Ok(()) } else { Err(n.to_string()) })
            };
            look.boxed()
        };
        // What is not as expected about it is found where that is found for all.
        let _ = self.browser.until(self.deadline(), look).await?;
        let n = last.load(Ordering::Relaxed);
        Ok(StepResult {
            seen: Some(format!("{n} × {css}")),
            answer: json(Value::from(n)),
            ..StepResult::default()
        })
    }

    async fn script(&self, script: &str) -> Result<StepResult, WebDriverError> {
        let driver = self.browser.driver();
        driver.set_script_timeout(self.within).await?;
        Ok(match driver.execute(script, Vec::<Value>::new()).await {
            Ok(value) => {
                let value = value.json().clone();
                StepResult {
                    seen: Some(shortened(&value.to_string(), SHOWN)),
                    answer: json(value),
                    ..StepResult::default()
                }
            }
            Err(error) => StepResult::failed("script", "one that runs to its end", words(&error)),
        })
    }
}

fn json(value: Value) -> Answer {
    Answer {
        json: Some(value),
        ..Answer::default()
    }
}
