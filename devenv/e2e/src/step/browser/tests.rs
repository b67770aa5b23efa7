use std::{os::unix::fs::PermissionsExt as _, sync::LazyLock};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::{Html, Redirect},
    routing::get,
};
use tokio::sync::{Mutex, MutexGuard};

use super::*;
use crate::step::testing::Bench;

const PAGE: &str = r#"<!doctype html><title>a page</title>
<h1>Hello   <b>there</b></h1>
<p id=hidden style="display:none">hidden words</p>
<input id=name value=old><button id=greet disabled>Greet</button><button id=hide>Hide</button>
<button id=later style="visibility:hidden">Later</button>
<ul id=list></ul><div id=out></div>
<script>
  const $ = id => document.getElementById(id);
  setTimeout(() => { $('greet').disabled = false; }, 100);
  $('greet').onclick = () => setTimeout(() => { $('out').textContent = 'Hello ' + $('name').value; }, 100);
  $('hide').onclick = () => setTimeout(() => { $('out').remove(); }, 100);
  let n = 0;
  setInterval(() => { if (n < 3) { n += 1; $('list').innerHTML += '<li>item ' + n; } }, 50);
</script>"#;

async fn serve() -> String {
    let language = async |headers: HeaderMap| {
        let accepted = headers["accept-language"].to_str().unwrap().to_owned();
        Html(format!(
            "<p id=accepted>{accepted}</p><p id=own></p>\
             <script>document.getElementById('own').textContent = navigator.language</script>"
        ))
    };
    let bad = |script: &'static str| {
        get(async move || Html(format!("<p>a page</p><script>{script}</script>")))
    };
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/language", get(language))
        .route("/moved", get(async || Redirect::to("/")))
        .route("/slow", get(std::future::pending::<()>))
        .route("/said", bad("console.error('said aloud')"))
        .route("/thrown", bad("throw new Error('not caught')"))
        .route("/rejected", bad("Promise.reject(new Error('not awaited'))"))
        .route(
            "/later",
            bad("setTimeout(() => console.error('much later'), 200)"),
        )
        .route(
            "/chatter",
            bad("console.log('log'); console.warn('warning')"),
        )
        .fallback(async || (StatusCode::NOT_FOUND, Html("<p>there is no such page")))
        .route("/favicon.ico", get(async || {}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// A browser takes much of a small machine: one at a time. `None` without one.
async fn bench() -> Option<(Bench, MutexGuard<'static, ()>)> {
    static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Err(error) = Programs::find(&path) {
        eprintln!("skipped: {error}");
        return None;
    }
    let turn = TURN.lock().await;
    Some((Bench::new(&serve().await), turn))
}

/// Processes that have the text in their command line.
fn processes(text: &str) -> Vec<String> {
    let commands = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path().join("cmdline");
        String::from_utf8(std::fs::read(path).ok()?).ok()
    });
    commands.filter(|command| command.contains(text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_used_as_a_person_uses_it() {
    let Some((mut bench, _turn)) = bench().await else {
        return;
    };
    let opened = bench
        .passes(r#"browser = { open = "${url}/moved", window = [800, 600] }"#)
        .await;
    assert_eq!(opened.seen.as_deref(), Some("a page"));
    bench.passes(r#"browser = { see = "Hello there" }"#).await;
    bench
        .passes(r##"browser = { see = "item 3", within = "#list" }"##)
        .await;
    bench.passes(r#"browser = { gone = "hidden words" }"#).await;
    bench
        .passes(r##"browser = { type = { into = "#name", text = "Ñandú" } }"##)
        .await;
    // It waits until the button is enabled, then for what comes of it.
    bench.passes(r##"browser = { click = "#greet" }"##).await;
    bench
        .passes(r##"browser = { see = "Hello Ñandú", within = "#out" }"##)
        .await;
    bench.passes(r##"browser = { click = "#hide" }"##).await;
    bench.passes(r#"browser = { gone = "Hello Ñandú" }"#).await;
    bench
        .passes(
            r##"browser = { count = "#list li" }
                expect = { json = { "$" = 3 } }
                capture = { what = "$" }"##,
        )
        .await;
    assert_eq!(bench.context.vars.get("what").unwrap(), Value::from(3));
    bench
        .passes(
            r#"browser = { script = 'return { w: innerWidth, all: [1, "x"] }' }
               expect = { json = { "$.w" = { gt = 700, le = 800 }, "$.all" = [1, "x"] } }"#,
        )
        .await;
    let taken = bench
        .passes(r#"browser = { screenshot = "the end/1" }"#)
        .await;
    assert_eq!(
        taken.screenshots,
        [Path::new("screenshots/suite.test.1.the-end-1.png")]
    );
    let png = std::fs::read(bench.run_dir().join(&taken.screenshots[0])).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    let dir = bench.run_dir().to_owned();
    let failed = bench.context.sessions.pictures(&dir, "a.b.1").await;
    assert_eq!(failed, [Path::new("screenshots/a.b.1.failed.png")]);
    assert!(dir.join(&failed[0]).is_file());
    bench
        .passes(r#"browser = { open = "${url}", window = [640, 480] }"#)
        .await;
    bench.context.sessions.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_with_what_is() {
    let Some((mut bench, _turn)) = bench().await else {
        return;
    };
    let failed = bench.fails(r##"browser = { click = "#a" }"##).await;
    assert_eq!(
        failed,
        "browser: expected one that an earlier step of this test opened, \
         got none: begin with browser = { open = \"…\" }"
    );
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    // The second is a port that a browser does not talk to.
    for (port, why) in [(nobody, "ERR_CONNECTION_REFUSED"), (1, "its own page")] {
        let step = format!(r#"browser = {{ open = "http://127.0.0.1:{port}/" }}"#);
        let failed = bench.fails(&step).await;
        assert!(failed.contains(why), "{failed}");
    }
    let failed = bench
        .fails(r#"browser = { open = "${url}/slow", for = "300ms" }"#)
        .await;
    assert!(failed.contains("/slow within 300ms, got "), "{failed}");
    bench.passes(r#"browser = { open = "${url}" }"#).await;
    // Wait for the page's own scripts, as what it says is compared as a whole.
    bench.passes(r#"browser = { see = "item 3" }"#).await;
    for (step, name) in [
        (r#"browser = { see = "Goodbye", for = "300ms" }"#, "see"),
        (
            r##"browser = { see = "x", within = "#none", for = "300ms" }"##,
            "see within",
        ),
        (r#"browser = { gone = "there", for = "300ms" }"#, "gone"),
        (
            r##"browser = { click = "#later", for = "300ms" }"##,
            "click",
        ),
        (r##"browser = { click = "#[", for = "300ms" }"##, "selector"),
        (
            r##"browser = { type = { into = "#none", text = "x" }, for = "300ms" }"##,
            "type",
        ),
        (
            "browser = { count = \"li\", for = \"300ms\" }\nexpect = { json = { \"$\" = { gt = 3 } } }",
            "count",
        ),
        (
            r#"browser = { script = "throw new Error('mine')" }"#,
            "script",
        ),
        (r#"browser = { script = "return (" }"#, "syntax"),
        (
            r#"browser = { open = "${url}", language = "es" }"#,
            "language",
        ),
    ] {
        let failed = bench.fails(step).await;
        insta::with_settings!({ description => step }, {
            insta::assert_snapshot!(name.replace(' ', "_"), failed);
        });
    }
    bench.context.sessions.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_console_fail_the_step_in_which_they_are_seen() {
    let Some((mut bench, _turn)) = bench().await else {
        return;
    };
    bench
        .passes(r#"browser = { open = "${url}/chatter" }"#)
        .await;
    for (page, mark) in [
        ("said", "said aloud"),
        ("thrown", "not caught"),
        ("rejected", "not awaited"),
        ("nowhere", "404"),
    ] {
        let step = format!(r#"browser = {{ open = "${{url}}/{page}" }}"#);
        let failed = bench.fails(&step).await;
        assert!(
            failed.starts_with("console: expected no errors, got ") && failed.contains(mark),
            "{failed}"
        );
        // Each is told once.
        bench.passes(r#"browser = { gone = "nothing" }"#).await;
        let step = format!(
            r#"browser = {{ open = "${{url}}/{page}", allow_console = ["nobody", "{mark}"] }}"#
        );
        bench.passes(&step).await;
    }
    bench.passes(r#"browser = { open = "${url}/later" }"#).await;
    let failed = bench
        .fails(r#"browser = { see = "never", for = "2s" }"#)
        .await;
    assert!(failed.contains("much later"), "{failed}");
    bench.context.sessions.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_language_is_the_pages() {
    let Some((mut bench, _turn)) = bench().await else {
        return;
    };
    bench
        .passes(r#"browser = { open = "${url}/language", language = "es" }"#)
        .await;
    bench
        .passes(r##"browser = { see = "es", within = "#accepted" }"##)
        .await;
    bench
        .passes(
            r#"browser = { script = "return navigator.language" }
               expect = { json = { "$" = "es" } }"#,
        )
        .await;
    bench.context.sessions.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_it() {
    let Some((mut bench, _turn)) = bench().await else {
        return;
    };
    let profile = |bench: &mut Bench| {
        let browser = bench.context.sessions.get::<Browser>(NAME).unwrap();
        browser.profile().to_owned()
    };
    bench.passes(r#"browser = { open = "${url}" }"#).await;
    let first = profile(&mut bench);
    assert!(!processes(first.to_str().unwrap()).is_empty());
    bench.context.sessions.close().await;
    assert_eq!(processes(first.to_str().unwrap()), Vec::<String>::new());
    assert!(!first.exists());

    // Dropped, as when the test's time is up.
    bench.passes(r#"browser = { open = "${url}" }"#).await;
    let second = profile(&mut bench);
    assert_ne!(first, second);
    drop(bench);
    let gone = async {
        while second.exists() || !processes(second.to_str().unwrap()).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_not_installed_is_named_with_the_command_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let find = || Programs::find(folder.path().as_os_str());
    assert_eq!(
        find().unwrap_err().to_string(),
        "chromium is not installed: apt-get install chromium chromium-driver"
    );
    let program = |name: &str, script: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(
        "chromium-browser",
        "#!/bin/sh\necho no display >&2\nexit 3\n",
    );
    assert_eq!(
        find().unwrap_err().to_string(),
        "chromedriver is not installed: apt-get install chromium chromium-driver"
    );
    program("chromedriver", "#!/bin/sh\nexec sleep 60\n");
    let programs = find().unwrap();
    assert_eq!(programs.chromium, folder.path().join("chromium-browser"));
}

/// A browser that can't start is no fault of the system under test.
#[tokio::test]
async fn a_browser_that_ends_says_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let programs = Programs {
        chromium: program("chromium", "#!/bin/sh\necho no display >&2\nexit 3\n"),
        chromedriver: program(
            "chromedriver",
            "#!/bin/sh\necho ChromeDriver was started successfully on port 1.\nexec sleep 60\n",
        ),
    };
    let error = Browser::start(&programs, WINDOW, LANGUAGE)
        .await
        .unwrap_err()
        .to_string();
    let error = error.replace(folder.path().to_str().unwrap(), "");
    assert_eq!(
        error,
        "/chromium did not start: it ended before it listened\nno display"
    );
}
