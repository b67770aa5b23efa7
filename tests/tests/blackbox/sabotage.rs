//! A test of the tests: each of these mistakes is made in a copy of the reference
//! application, and the suites must catch it and name the culprit.

use devenv_tests::project::{Project, Run};
use devenv_tests::{find_tool, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const RUN: Duration = Duration::from_secs(240);

/// A mistake: what is changed where, which suite must see it, and what its message says.
struct Sabotage {
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    suite: &'static str,
    /// All of these stand in what is printed.
    says: &'static [&'static str],
}

/// The page's program, whose name has a hash in it.
const PAGE: &str = "services/frontend/web/dist/assets/*.js";

const ALL: &[Sabotage] = &[
    Sabotage {
        what: "api2 stamps the wrong name",
        file: "kind/overlays/seed/kustomization.yaml",
        from: "value: NodeJS",
        to: "value: Nodejs",
        suite: "split",
        says: &["Nodejs"],
    },
    Sabotage {
        what: "the canary gets 30 percent",
        file: "kind/base/ingress.yaml",
        from: "canary-weight: \"50\"",
        to: "canary-weight: \"30\"",
        suite: "split",
        says: &["Python", "NodeJS", "300"],
    },
    Sabotage {
        what: "api1 answers 201 before the commit",
        file: "services/seed/api1/app/write.py",
        from: "    if keyed is None:\n        return await _attempts(db, api, records, None, deadline)",
        to: "    if keyed is None:\n        held = await db.pool.acquire()\n        await held.begin()\n        async with held.cursor() as early:\n            ids = await _insert_rows(early, api, records)\n\n        async def late() -> None:\n            await asyncio.sleep(1)\n            await held.commit()\n            db.pool.release(held)\n\n        asyncio.create_task(late())\n        return Receipt(ids, api)",
        suite: "contract",
        says: &["sql", "rows"],
    },
    Sabotage {
        what: "api1 ignores the key",
        file: "services/seed/api1/app/write.py",
        from: "    deadline = asyncio.get_running_loop().time() + LIMIT\n",
        to: "    deadline = asyncio.get_running_loop().time() + LIMIT\n    keyed = None\n",
        suite: "idempotency",
        says: &["the same key and body"],
    },
    Sabotage {
        what: "api3 sends an event under another name",
        file: "services/seed/api3/src/live.js",
        from: "io.emit(\"metrics-update\"",
        to: "io.emit(\"metric-update\"",
        suite: "live",
        says: &["metrics-update"],
    },
    Sabotage {
        what: "the page has an address built in",
        file: PAGE,
        from: "fetch(\"/config.json\"",
        to: "fetch(\"data:application/json,{\\\"api3Url\\\":\\\"http://127.0.0.1:9\\\",\\\"ingressUrl\\\":\\\"\\\",\\\"service\\\":\\\"\\\",\\\"revision\\\":\\\"\\\"}\"",
        suite: "page",
        says: &["http://127.0.0.1:9"],
    },
    Sabotage {
        what: "a migration drops an index",
        file: "services/migrations/0002_idempotency.sql",
        from: "-- The first answer",
        to: "ALTER TABLE records DROP INDEX records_api_id;\n-- The first answer",
        suite: "contract",
        says: &["records_api_id"],
    },
    Sabotage {
        what: "one insert of a hundred is lost",
        file: "services/seed/api2/src/write.js",
        from: "export async function insert(db, locks, api, records, keyed) {\n",
        to: "let n = 0;\nexport async function insert(db, locks, api, records, keyed) {\n  if (++n % 100 === 0) return { ids: [900000000 + n], api, replayed: false };\n",
        suite: "ingest",
        says: &["lost"],
    },
    Sabotage {
        what: "the page logs an error",
        file: PAGE,
        from: "async function",
        to: "console.error(\"sabotage\");async function",
        suite: "page",
        says: &["console", "sabotage"],
    },
    Sabotage {
        what: "a Service's targetPort is wrong",
        file: "kind/base/api2.yaml",
        from: "targetPort: http",
        to: "targetPort: 3001",
        suite: "split",
        says: &["502"],
    },
    Sabotage {
        what: "api1 is always ready",
        file: "services/seed/api1/app/routes.py",
        from: "async def readyz(service: App) -> Response:\n",
        to: "async def readyz(service: App) -> Response:\n    return Response(status_code=200)\n",
        suite: "outage",
        says: &["api1", "readyReplicas"],
    },
    Sabotage {
        what: "api1 does not say when to come again",
        file: "services/seed/api1/app/problem.py",
        from: "headers={\"Retry-After\": \"1\"}",
        to: "headers={}",
        suite: "outage",
        says: &["retry-after"],
    },
    Sabotage {
        what: "the page takes texts for markup",
        file: PAGE,
        from: "async function",
        to: "Element.prototype.append=function(...c){for(const x of c)typeof x===\"string\"?this.insertAdjacentHTML(\"beforeend\",x):this.appendChild(x)};Object.defineProperty(Node.prototype,\"textContent\",{get(){return this.innerText},set(v){this.innerHTML=v}});async function",
        suite: "page",
        says: &["markup"],
    },
];

fn find(project: &Project, file: &str) -> PathBuf {
    let path = project.path().join(file);
    if !file.contains('*') {
        return path;
    }
    let folder = path.parent().expect("a folder");
    let mut files = fs::read_dir(folder).expect("the built page").flatten();
    files
        .find(|f| f.path().extension().is_some_and(|e| e == "js"))
        .expect("the page's program")
        .path()
}

/// Replaces, so that a file that is linked to the checkout's own is left as it is there.
fn put(file: &Path, text: &str) {
    let beside = file.with_extension("tmp~");
    fs::write(&beside, text).expect("a file in the copy");
    fs::rename(&beside, file).expect("replaced");
}

async fn suite(project: &Project, name: &str) -> Run {
    let arguments = ["test", "e2e", name, "--profile", "seed"];
    project.run_within(RUN, &arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_caught_and_named() {
    if find_tool("chromium").is_none() || find_tool("chromedriver").is_none() {
        return skip("there is no chromium or chromedriver here");
    }
    let project = Project::reference();
    let whole = project
        .run_within(RUN, &["test", "e2e", "--profile", "seed"])
        .await;
    assert!(whole.ok(), "without a mistake: {whole}");
    let mut missed = Vec::new();
    for sabotage in ALL {
        let file = find(&project, sabotage.file);
        let good = fs::read_to_string(&file).expect("a file of the copy");
        assert!(
            good.contains(sabotage.from),
            "{}: {}",
            sabotage.what,
            file.display()
        );
        put(&file, &good.replacen(sabotage.from, sabotage.to, 1));
        let run = suite(&project, sabotage.suite).await;
        put(&file, &good);
        let said = format!("{}{}", run.stdout, run.stderr);
        let unsaid: Vec<_> = sabotage
            .says
            .iter()
            .filter(|s| !said.contains(**s))
            .collect();
        println!(
            "{}: {} in {:.1?}",
            sabotage.what,
            run.code.unwrap_or(-1),
            run.took
        );
        if run.code != Some(1) || !unsaid.is_empty() {
            missed.push(format!("{} (not said: {unsaid:?}):\n{run}", sabotage.what));
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {} mistakes were not caught, or not named:\n{}",
        missed.len(),
        ALL.len(),
        missed.join("\n\n")
    );
    let again = suite(&project, "contract").await;
    assert!(again.ok(), "after all is mended: {again}");
}
