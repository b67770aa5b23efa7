//! The way to the database, with a real cluster and a real server: through whichever
//! ports the application's Service has, for devenv itself as for pods.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use devenv_cluster::Isolation;
use devenv_model::{LoadOptions, Topology};
use devenv_platform::cloudsql::{Engine, EngineError};
use devenv_platform::{
    Database, DatabaseOptions, FIELD_MANAGER, LocalOptions, LocalTarget, Target, TargetError,
    Volumes,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::await_condition;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Row};
use tokio::io::AsyncReadExt;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where production's database is, as programs may have it built in.
const BUILT_IN: Ipv4Addr = Ipv4Addr::new(34, 66, 1, 2);

/// A project of a Service and a database.
struct Project(tempfile::TempDir);

impl Project {
    fn new(ports: &Value) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let config = format!(
            "[project]\nname = \"p\"\nnamespace = \"default\"\nmanifests = [\"db.yaml\"]\n[cloudsql]\nalso_at = [\"{BUILT_IN}\"]\n"
        );
        fs::write(project.path().join("devenv.toml"), config).unwrap();
        project.say(ports);
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives the Service these ports.
    fn say(&self, ports: &Value) {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cloudsql}}\nspec: {{ports: {ports}}}\n"
        );
        fs::write(self.path().join("db.yaml"), service).unwrap();
    }

    fn topology(&self) -> Topology {
        let loaded = Topology::load(self.path(), &LoadOptions::default());
        loaded.into_result().unwrap().0
    }
}

/// What runs of a project.
struct Run {
    target: LocalTarget,
    topology: Topology,
}

impl Run {
    async fn start(project: &Project, isolation: Isolation) -> Self {
        let topology = project.topology();
        let root = project.path().to_owned();
        let state_dir = root.join(".devenv");
        fs::create_dir_all(&state_dir).unwrap();
        let [_, _, a, b] = std::process::id().to_be_bytes();
        let sql = topology.cloud_sql().unwrap();
        let target = LocalTarget::start(LocalOptions {
            hidden: state_dir.clone(),
            state_dir,
            root,
            address: Ipv4Addr::new(127, 202, a, b.max(1)),
            by_hand: false,
            project: topology.project().name.clone(),
            namespace: topology.project().namespace.clone(),
            http_port: 0,
            cloud_run: Vec::new(),
            database: Some(DatabaseOptions {
                service: sql.service.clone(),
                port: sql.port,
                also_at: sql.also_at.clone(),
            }),
            isolation,
            volumes: Volumes::Delete,
            containers: None,
        });
        let target = target.await.expect("the cluster starts");
        Self { target, topology }
    }

    async fn database(&self) -> Result<Database, TargetError> {
        let database = self.target.database(&self.topology).await?;
        Ok(database.expect("[cloudsql] asks for one"))
    }

    /// Applies the Service, as a project says it.
    async fn apply(&self, topology: &Topology) -> Service {
        let namespace = &topology.project().namespace;
        let api: Api<Service> = Api::namespaced(self.target.client(), namespace);
        let mut services = topology.of_kind("v1", "Service");
        let service = services.next().unwrap();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api
            .patch(service.name(), &params, &Patch::Apply(service.value()))
            .await;
        applied.expect("the Service is applied")
    }

    /// Waits until the server's pod has answered its probe.
    async fn until_pod_is_ready(&self) {
        let api: Api<Deployment> = Api::namespaced(self.target.client(), "devenv-system");
        let available = |d: Option<&Deployment>| {
            let status = d.and_then(|d| d.status.as_ref());
            status.and_then(|s| s.available_replicas) == Some(1)
        };
        let ready = await_condition(api, "cloudsql", available);
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        ready.expect("in time").expect("watched");
    }

    /// Whether MySQL greets who connects to this address as a pod does.
    async fn greets(&self, address: SocketAddrV4) -> bool {
        let Ok(mut stream) = self.target.connect(address).await else {
            return false;
        };
        // Length and number of the packet, then the protocol's version, 10.
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.is_ok() && start[4] == 10
    }

    /// What listens at a ClusterIP follows its Service and slices in its own time.
    async fn until_greeted(&self, address: SocketAddrV4) {
        let greeted = async {
            while !self.greets(address).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, greeted)
            .await
            .unwrap_or_else(|_| panic!("nobody greets at {address}"));
    }

    /// Every port of the Service, at its ClusterIP.
    async fn until_all_greet(&self, service: &Service) {
        let spec = service.spec.as_ref().unwrap();
        let ip = spec.cluster_ip.as_ref().unwrap().parse().unwrap();
        for port in spec.ports.iter().flatten() {
            let number = u16::try_from(port.port).unwrap();
            self.until_greeted(SocketAddrV4::new(ip, number)).await;
        }
    }

    async fn stop(self) {
        Box::new(self.target)
            .shutdown(Duration::from_secs(20))
            .await;
    }
}

/// One row from the server, through devenv's own connection.
async fn query(database: &Database) {
    let mut connection = database.connect.connect().await.expect("connected");
    let row = sqlx::query("SELECT 1").fetch_one(&mut connection).await;
    assert_eq!(row.expect("a row").get::<i32, _>(0), 1);
}

/// The Service comes after the server: devenv's own connection works at once even so.
async fn leads(isolation: Isolation, ports: Value) {
    let project = Project::new(&ports);
    let run = Run::start(&project, isolation).await;
    let late = async {
        run.until_pod_is_ready().await;
        Ok(run.apply(&run.topology).await)
    };
    let started = tokio::try_join!(run.database(), late);
    let (database, service) = started.expect("the database starts");
    query(&database).await;
    assert!(run.greets(SocketAddrV4::new(BUILT_IN, 3306)).await);
    run.until_all_greet(&service).await;
    run.stop().await;
}

/// The Service's ports get other names and numbers, first while all runs, then between
/// two runs, of which the second finds the objects of the first.
async fn renamed() {
    let project = Project::new(&json!([{"port": 3306}]));
    let run = Run::start(&project, Isolation::Auto).await;
    let (database, _) = tokio::join!(run.database(), run.apply(&run.topology));
    let database = database.expect("the database starts");
    query(&database).await;
    project.say(&json!([
        {"name": "other", "port": 13306, "targetPort": 3307}, {"name": "sql", "port": 3306},
    ]));
    let service = run.apply(&project.topology()).await;
    run.until_all_greet(&service).await;
    query(&database).await;
    run.stop().await;

    project.say(&json!([{"name": "third", "port": 23306}]));
    let run = Run::start(&project, Isolation::Auto).await;
    let (database, service) = tokio::join!(run.database(), run.apply(&run.topology));
    query(&database.expect("the database starts")).await;
    run.until_all_greet(&service).await;
    run.stop().await;
}

/// Without the Service in the project's namespace there is nothing to wait for.
async fn elsewhere() {
    let project = Project::new(&json!([{"port": 3306}]));
    let mut run = Run::start(&project, Isolation::Auto).await;
    let file = project.path().join("db.yaml");
    let service = fs::read_to_string(&file).unwrap();
    let service = service.replace("name: cloudsql", "name: cloudsql, namespace: kube-public");
    fs::write(&file, service).unwrap();
    run.topology = project.topology();
    let error = run.database().await.expect_err("it leads nowhere");
    let said = error.to_string();
    assert!(
        said.contains("no Service cloudsql in the namespace default"),
        "{said}"
    );
    run.stop().await;
}

fn trial<F: Future<Output = ()>>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        match Engine::find() {
            Err(EngineError::NotInstalled) if std::env::var("CI").as_deref() != Ok("true") => {
                println!("skipped: no database server is installed");
                return Ok(());
            }
            found => found.map_err(Failed::from)?,
        };
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        runtime.block_on(run());
        Ok(())
    })
}

fn main() {
    devenv_cluster::run_role_if_asked();
    let mut arguments = Arguments::from_args();
    // They share an address and its ports.
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("a_port_without_a_name_leads_there", || {
            leads(Isolation::Auto, json!([{"port": 3306}]))
        }),
        trial("so_it_does_in_plain_processes", || {
            leads(Isolation::Ports, json!([{"port": 3306}]))
        }),
        trial("another_port_leads_there", || {
            let port = json!([{"name": "db", "port": 13306, "targetPort": 3307}]);
            leads(Isolation::Auto, port)
        }),
        trial("all_of_several_ports_lead_there", || {
            let ports = json!([{"name": "a", "port": 13306}, {"name": "b", "port": 3306, "targetPort": 3306}]);
            leads(Isolation::Auto, ports)
        }),
        trial("ports_that_change_lead_there_again", renamed),
        trial("a_service_elsewhere_is_told", elsewhere),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}
