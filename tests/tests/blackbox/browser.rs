//! The page, in a real Chromium.

use devenv_tests::clients::Browser;
use devenv_tests::project::Project;
use devenv_tests::record::record;
use devenv_tests::{find_tool, skip, until};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use thirtyfour::By;

async fn attribute(browser: &Browser, id: &str, name: &str) -> Option<String> {
    let element = browser
        .driver
        .find(By::Css(format!("[data-testid={id}]")))
        .await
        .ok()?;
    element.attr(name).await.ok()?
}

/// The number that an element shows, whatever separates its thousands.
async fn number(browser: &Browser, id: &str) -> Option<u64> {
    let element = browser
        .driver
        .find(By::Css(format!("[data-testid={id}]")))
        .await
        .ok()?;
    let text = element.text().await.ok()?;
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_posted_record_within_a_second() {
    if find_tool("chromium").is_none() || find_tool("chromedriver").is_none() {
        return skip("there is no chromium or chromedriver here");
    }
    let project = Project::reference();
    project.up().await;
    let base = project.ingress().await;
    let page = project.url("frontend").await;
    let browser = Browser::start(1280, 900)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    browser.driver.goto(&page).await.unwrap();
    let connected = until(
        Duration::from_secs(15),
        Duration::from_millis(20),
        || async {
            let state = attribute(&browser, "connection", "data-state").await;
            (state.as_deref() == Some("connected")).then_some(())
        },
    );
    assert!(
        connected.await.is_some(),
        "{:?}",
        browser.console_errors().await
    );

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut slowest = Duration::ZERO;
    for n in 0..5_u32 {
        let start = Instant::now();
        let answer = client
            .post(format!("{base}/api"))
            .json(&record(3000.0 + f64::from(n)))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let answer: Value = answer.json().await.unwrap();
        let id = answer["ids"][0].as_u64().unwrap().to_string();
        let shown = until(Duration::from_secs(5), Duration::from_millis(5), || async {
            let last = attribute(&browser, "last-record", "data-id").await;
            (last.as_deref() == Some(&*id)).then_some(())
        });
        assert!(shown.await.is_some(), "record {id} was not shown");
        slowest = slowest.max(start.elapsed());
        let total = number(&browser, "total").await;
        assert_eq!(total, Some(u64::from(n) + 1), "the shown total");
    }
    println!("from before the POST to the shown record: at most {slowest:.0?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let [one, two] = [
        number(&browser, "count-api1").await,
        number(&browser, "count-api2").await,
    ];
    assert_eq!(one.unwrap_or(0) + two.unwrap_or(0), 5, "{one:?} {two:?}");

    if let Some(file) = std::env::var_os("DEVENV_SCREENSHOT") {
        // A page with something to see.
        let words = ["traffic", "--rate", "40", "--requests", "1000"];
        let run = project.run_within(Duration::from_secs(60), &words).await;
        assert!(run.ok(), "{run}");
        let file = devenv_tests::project::checkout().join(file);
        browser.driver.screenshot(Path::new(&file)).await.unwrap();
    }
    let errors = browser.console_errors().await.unwrap();
    browser.quit().await;
    assert!(errors.is_empty(), "the page's console: {errors:#?}");
}
