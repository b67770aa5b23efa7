use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bollard::query_parameters::CreateImageOptions;
use devenv_compose::{Engine, EngineError, LogOptions, Options, Progress, Project, load};
use futures_util::{StreamExt, TryStreamExt};

/// A static busybox with its common names, as an image.
pub const IMAGE: &str = "devenv-compose-test/busybox:1";

const BUSYBOX: &str = "/bin/busybox";

/// Says that a test is skipped, or fails where nothing may be skipped.
fn skipped(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
    eprintln!("SKIPPED: {what}");
}

/// An engine that has the image; nothing where there is none.
pub async fn engine() -> Option<Engine> {
    let host = std::env::var("DOCKER_HOST").ok();
    let engine = match Engine::connect(host.as_deref()).await {
        Ok(engine) => engine,
        Err(e) => {
            skipped(&e.to_string());
            return None;
        }
    };
    if !is_static_busybox() {
        skipped("a static busybox is missing; install busybox-static");
        return None;
    }
    // Once, however many tests want it at the same time.
    static IMPORTED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let there = async || {
        if engine.docker().inspect_image(IMAGE).await.is_err() {
            import_image(&engine).await;
        }
    };
    IMPORTED.get_or_init(there).await;
    Some(engine)
}

fn is_static_busybox() -> bool {
    let listed = Command::new("ldd").arg(BUSYBOX).output();
    std::fs::exists(BUSYBOX).unwrap_or(false) && listed.is_ok_and(|o| !o.status.success())
}

async fn import_image(engine: &Engine) {
    let root = tempfile::tempdir().unwrap();
    for dir in ["bin", "tmp", "etc", "data"] {
        std::fs::create_dir(root.path().join(dir)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.path().join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "cat", "echo", "httpd", "wget", "true", "nslookup", "trap",
    ] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let tar = Command::new("tar")
        .arg("-C")
        .arg(root.path())
        .args(["-c", "."])
        .output()
        .expect("tar runs");
    assert!(tar.status.success());
    let (repo, tag) = IMAGE.split_once(':').unwrap();
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        changes: vec!["CMD [\"sleep\", \"3600\"]".into()],
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(tar.stdout.into());
    let steps = engine
        .docker()
        .create_image(Some(options), Some(body), None);
    steps.try_collect::<Vec<_>>().await.expect("it is imported");
}

/// The real Compose 2: of `DEVENV_TEST_COMPOSE`, or an installed plugin of Docker's.
pub fn compose() -> Option<PathBuf> {
    let given = std::env::var_os("DEVENV_TEST_COMPOSE").map(PathBuf::from);
    let installed = [
        "/usr/libexec",
        "/usr/lib",
        "/usr/local/lib",
        "/usr/local/libexec",
    ]
    .map(|dir| PathBuf::from(dir).join("docker/cli-plugins/docker-compose"));
    let found = given
        .into_iter()
        .chain(installed)
        .find(|path| path.is_file());
    if found.is_none() {
        skipped("Docker Compose 2 is missing; install it or set DEVENV_TEST_COMPOSE to the binary");
    }
    found
}

/// A project of its own name in a folder of its own; gone when dropped.
pub struct TestProject {
    dir: tempfile::TempDir,
    pub name: String,
    pub engine: Engine,
    told: Mutex<Vec<Progress>>,
}

impl TestProject {
    pub fn new(engine: &Engine, text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let project = Self {
            dir: tempfile::Builder::new()
                .prefix("compose")
                .tempdir()
                .unwrap(),
            name: format!("devenv-compose-{}-{number}", std::process::id()),
            engine: engine.clone(),
            told: Mutex::default(),
        };
        project.write(text);
        project
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("compose.yaml")
    }

    /// Writes the file; IMAGE stands for the image.
    pub fn write(&self, text: &str) {
        let text = format!("name: {}\n{}", self.name, text.replace("IMAGE", IMAGE));
        std::fs::write(self.file(), text).unwrap();
    }

    pub fn load(&self) -> Project {
        let options = Options {
            environment: BTreeMap::new(),
            ..Options::default()
        };
        let loaded = load(&self.file(), &options);
        loaded.unwrap_or_else(|e| panic!("{e}")).project
    }

    /// `up`, and what was told. Where it hangs, the test ends.
    pub async fn up(&self) -> Result<Vec<Progress>, EngineError> {
        self.told.lock().unwrap().clear();
        let project = self.load();
        let told = |event| self.told.lock().unwrap().push(event);
        let up = self.engine.up(&project, &told);
        // Bounds a hang; nothing is measured by it.
        let limit = std::time::Duration::from_secs(120);
        let done = tokio::time::timeout(limit, up).await;
        done.unwrap_or_else(|_| panic!("up hangs: {:?}", self.told.lock().unwrap()))?;
        Ok(self.told.lock().unwrap().clone())
    }

    pub async fn down(&self, volumes: bool) -> Result<(), EngineError> {
        self.engine.down(&self.name, volumes, &|_| ()).await
    }

    /// The container's name of a service.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    /// Services with their state and health.
    pub async fn states(&self) -> Vec<(String, String, Option<String>)> {
        let found = self.engine.ps(&self.name).await.unwrap();
        let mut out = Vec::new();
        for c in found {
            out.push((c.service, c.state, c.health));
        }
        out
    }

    pub async fn ids(&self) -> Vec<String> {
        let found = self.engine.ps(&self.name).await.unwrap();
        found.into_iter().map(|c| c.id).collect()
    }

    pub async fn log_texts(&self, service: &str) -> Vec<String> {
        let options = LogOptions {
            services: vec![service.into()],
            ..LogOptions::default()
        };
        let lines = self.engine.logs(&self.name, &options).await.unwrap();
        lines.map(|line| line.unwrap().text).collect().await
    }

    /// What docker says has the project's label: containers, networks, volumes.
    pub async fn left(&self) -> [usize; 3] {
        use bollard::query_parameters::{
            ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
        };
        let label = format!("com.docker.compose.project={}", self.name);
        let filters = Some(std::collections::HashMap::from([(
            "label".to_owned(),
            vec![label],
        )]));
        let docker = self.engine.docker();
        let containers = docker
            .list_containers(Some(ListContainersOptions {
                all: true,
                filters: filters.clone(),
                ..ListContainersOptions::default()
            }))
            .await
            .unwrap();
        let networks = docker
            .list_networks(Some(ListNetworksOptions {
                filters: filters.clone(),
            }))
            .await
            .unwrap();
        let volumes = docker
            .list_volumes(Some(ListVolumesOptions { filters }))
            .await
            .unwrap();
        let volumes = volumes.volumes.unwrap_or_default();
        [containers.len(), networks.len(), volumes.len()]
    }

    /// Runs the real Compose on the project's file; its standard output.
    pub fn compose(&self, program: &PathBuf, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .arg("-f")
            .arg(self.file())
            .args(arguments)
            .output()
            .expect("Compose runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for TestProject {
    fn drop(&mut self) {
        let (engine, name) = (self.engine.clone(), self.name.clone());
        // A runtime of its own: this one may be the test's only thread.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(engine.down(&name, true, &|_| ()))
        });
        let cleaned = cleanup.join();
        if !std::thread::panicking() {
            cleaned.expect("no panic").expect("it goes down");
        }
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
