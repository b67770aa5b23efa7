//! The browser harness itself: it must see what a page does wrong.

mod harness {
    use axum::Router;
    use axum::response::Html;
    use axum::routing::get;
    use devenv_tests::clients::Browser;
    use devenv_tests::{find_tool, skip, until};
    use std::time::Duration;
    use thirtyfour::By;

    async fn serve(page: &'static str) -> String {
        let app = Router::new()
            .route("/", get(move || async move { Html(page) }))
            .route("/favicon.ico", get(|| async {}));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn console_errors_uncaught_exceptions_and_missing_files_are_seen() {
        if find_tool("chromium").is_none() || find_tool("chromedriver").is_none() {
            return skip("there is no chromium or chromedriver here");
        }
        let browser = Browser::start(800, 600).await.unwrap();
        let good = serve("<p id=p>good</p><script>console.log('chatter')</script>").await;
        browser.driver.goto(&good).await.unwrap();
        let text = browser.driver.find(By::Id("p")).await.unwrap().text().await;
        assert_eq!(text.unwrap(), "good");
        assert_eq!(
            browser.console_errors().await.unwrap(),
            Vec::<String>::new()
        );

        for (page, mark) in [
            ("<script>console.error('said aloud')</script>", "said aloud"),
            (
                "<script>throw new Error('not caught')</script>",
                "not caught",
            ),
            ("<script src=/missing.js></script>", "missing.js"),
        ] {
            browser.driver.goto(serve(page).await).await.unwrap();
            let seen = until(
                Duration::from_secs(5),
                Duration::from_millis(20),
                || async {
                    let errors = browser.console_errors().await.unwrap();
                    errors
                        .iter()
                        .any(|error| error.contains(mark))
                        .then_some(())
                },
            );
            assert!(seen.await.is_some(), "{mark}");
        }
        browser.quit().await;
    }
}
