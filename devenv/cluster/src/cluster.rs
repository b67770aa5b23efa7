//! The cluster as its users see it: started, used, shut down.
//!
//! Start: netd and the store at once, then the sockets, DNS and the API, then
//! the proxies, then the controllers and the kubelet. Shutdown goes the other
//! way: the proxies drain, the pods end (databases last), then the API, the
//! network and the store.

mod fresh;
mod limits;
mod options;
mod tasks;

pub use options::{ClusterError, ClusterOptions, Containers};
pub use tasks::TaskFailed;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use devenv_ingress::{Proxy, ProxyOptions, Table};
use devenv_sandbox::{Netd, NetdOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::warn;

use crate::api::{ApiOptions, ApiServer, ApiService};
use crate::controllers::deployment::Deployments;
use crate::controllers::endpoints::EndpointsMirror;
use crate::controllers::endpointslice::EndpointSlices;
use crate::controllers::events::Recorder;
use crate::controllers::gc::GarbageCollector;
use crate::controllers::ingress::{Ingresses, routes_without_endpoints};
use crate::controllers::knative::{Front, KnativeServices};
use crate::controllers::replicaset::ReplicaSets;
use crate::controllers::runtime::{self, Controller};
use crate::ground::Ground;
use crate::host::HostPrograms;
use crate::image::ImageTable;
use crate::net::balance::Balancer;
use crate::net::clusterip::ClusterIps;
use crate::net::connect::Sockets;
use crate::net::dial::{Dialer, ServicePort};
use crate::net::dns::{Dns, upstream::Upstream};
use crate::net::fault::Faults;
use crate::net::front::Carrier;
use crate::net::hostports::HostPorts;
use crate::net::routed::Routed;
use crate::net::well_known::{API_IN_CLUSTER, DNS};
use crate::net::{egress, endpoints, forward};
use crate::pod::docker::sweep::Owner;
use crate::pod::docker::{DockerRuntime, RUNTIME_FOLDER};
use crate::pod::instance::Shared;
use crate::pod::ip::IpPool;
use crate::pod::kubelet::{Command, Kubelet};
use crate::pod::logs::LogStore;
use crate::pod::metrics::Metrics;
use crate::pod::mixed::MixedRuntime;
use crate::pod::pids::Pids;
use crate::pod::probes::NetProber;
use crate::pod::runtime::PodRuntime;
use crate::pod::sandbox::ProcessRuntime;
use crate::pod::spec::Surroundings;
use crate::store::Store;
use tasks::Tasks;

/// How long the proxies may take to finish requests in flight at the end.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A running cluster. Dropping it kills everything in it; [`Cluster::shutdown`] ends it in peace.
pub struct Cluster {
    store: Store,
    images: ImageTable,
    api: ApiServer,
    dialer: Dialer,
    routed: Routed,
    pids: Pids,
    ground: Arc<Ground>,
    proxy: Arc<Proxy>,
    fronts: Arc<Vec<Front>>,
    kubelet_tx: mpsc::Sender<Command>,
    /// Controllers: they stop first, so that nobody replaces the pods that end.
    deciding: Tasks,
    /// The kubelet.
    running: Tasks,
    /// Network: pods need it until their end.
    carrying: Tasks,
    failed_rx: Mutex<mpsc::Receiver<TaskFailed>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("api", &self.api.addr())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts a cluster; when this returns, its API and Ingress answer and DNS works.
    ///
    /// # Errors
    /// See [`ClusterError`]. What was started by then is taken down again.
    pub async fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let run_dir = options.state_dir.join("run");
        let pods_dir = run_dir.join("pods");
        let netd_dir = run_dir.join("netd");
        make_private(&run_dir)?;
        empty(&pods_dir)?;
        make_private(&netd_dir)?;

        let netd_options = NetdOptions {
            run_dir: netd_dir,
            owner_uid: options.owner.0,
            owner_gid: options.owner.1,
        };
        let store_path = options.state_dir.join("store.redb");
        let (isolation, address) = (options.isolation, options.address);
        let (ground, store) = tokio::join!(
            blocking("start netd", move || {
                Ground::start(isolation, netd_options, address).map_err(ClusterError::from)
            }),
            blocking("open the store", move || {
                let store = Store::open(&store_path)?;
                fresh::prepare(&store)?;
                Ok(store)
            }),
        );
        let (ground, store) = (Arc::new(ground?), store?);
        limits::raise_open_files();

        let (failed_tx, failed_rx) = mpsc::channel(8);
        let (deciding, running, carrying) = (
            Tasks::new(failed_tx.clone()),
            Tasks::new(failed_tx.clone()),
            Tasks::new(failed_tx),
        );

        let sockets = match &*ground {
            Ground::Sandbox(netd) => {
                let sockets = Sockets::new();
                carrying.spawn("socket stock", {
                    let (sockets, stop) = (sockets.clone(), carrying.stop_token());
                    let netd = netd.clone();
                    async move { sockets.refill(netd, stop).await }
                });
                sockets
            }
            Ground::Ports(ports) => Sockets::on_loopback(ports.loopback.clone()),
        };
        let dialer = Dialer::new(sockets.clone(), &ground, store.clone(), options.also_at);
        // Plain processes have this machine's resolver and its way out.
        if let Ground::Sandbox(netd) = &*ground {
            start_dns(netd, &store, &carrying).await?;
            start_way_out(netd, &dialer, &carrying).await;
        }

        let logs = LogStore::new(run_dir.join("logs"), store.clone())
            .map_err(ClusterError::io("make the folder for logs"))?;
        let metrics = Metrics::default();
        let project = options.project.clone();
        let in_cluster = match &*ground {
            Ground::Sandbox(netd) => {
                let netd = netd.clone();
                let listen = move || Ok(netd.listen_tcp(API_IN_CLUSTER)?);
                Some(blocking("listen for the API in the cluster", listen).await?)
            }
            Ground::Ports(_) => None,
        };
        let api = ApiServer::start(
            store.clone(),
            ApiOptions {
                listen: options.api_listen,
                in_cluster,
                kubeconfig: options.state_dir.join("kubeconfig"),
                tls_dir: options.state_dir.join("tls"),
                project: options.project,
                namespace: options.namespace,
                logs: Arc::new(logs.clone()),
                metrics: Arc::new(metrics.clone()),
                server_version: None,
            },
        )
        .await?;

        let ingress_at = options
            .ingress
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let proxy_options = ProxyOptions {
            connector: Arc::new(dialer.clone()),
            ..ProxyOptions::new(options.ingress)
        };
        let proxy = Arc::new(Proxy::start(
            proxy_options,
            routes_without_endpoints(&store),
        )?);
        let fronts = Arc::new(fronts(options.knative, &dialer)?);

        let images = ImageTable::new();
        let recorder = Recorder::new(store.clone());
        let routed = Routed::new();
        control(
            &deciding,
            &store,
            "deployment controller",
            Deployments::new(store.clone(), recorder.clone()).on_loopback(ground.loopback()),
        );
        control(
            &deciding,
            &store,
            "replicaset controller",
            ReplicaSets::new(store.clone(), recorder.clone()),
        );
        control(
            &deciding,
            &store,
            "garbage collector",
            GarbageCollector::new(store.clone()),
        );
        let knative = KnativeServices::new(
            store.clone(),
            recorder.clone(),
            routed.clone(),
            fronts.clone(),
            options.env_for_knative,
        );
        control(&deciding, &store, "knative controller", knative);
        control(
            &deciding,
            &store,
            "endpointslice controller",
            EndpointSlices::new(store.clone()),
        );
        control(
            &deciding,
            &store,
            "endpoints controller",
            EndpointsMirror::new(store.clone()),
        );
        let ingresses = Ingresses::new(
            store.clone(),
            recorder.clone(),
            proxy.clone(),
            routed.clone(),
            options.ingress_addresses,
        );
        control(&deciding, &store, "ingress controller", ingresses);
        let faults = Faults::default();
        let carrier = Carrier::new(
            dialer.clone(),
            faults.clone(),
            carrying.stop_token(),
            carrying.tracker(),
        );
        let cluster_ips = ClusterIps::new(
            store.clone(),
            recorder.clone(),
            ground.clone(),
            carrier.clone(),
            routed.clone(),
        );
        control(&carrying, &store, "ClusterIPs", cluster_ips);
        let host_ports = HostPorts::new(
            store.clone(),
            recorder.clone(),
            carrier,
            routed.clone(),
            options.address,
            ingress_at,
        );
        control(&carrying, &store, "node ports", host_ports);

        let runtime: Arc<dyn PodRuntime> = match &*ground {
            Ground::Sandbox(netd) => {
                let processes = Arc::new(ProcessRuntime::new(netd.clone()));
                match options.containers {
                    None => processes,
                    Some(Containers { docker, host }) => {
                        let owner = Owner::new(&project, &options.state_dir);
                        let dir = options.state_dir.join(RUNTIME_FOLDER);
                        let engine = (docker, host.as_str());
                        let containers = DockerRuntime::start(engine, netd.clone(), owner, dir);
                        Arc::new(MixedRuntime {
                            processes,
                            containers: Arc::new(containers.await?),
                        })
                    }
                }
            }
            Ground::Ports(ports) => {
                if options.containers.is_some() {
                    return Err(ClusterError::ContainersNeedSandbox(ports.remedy.clone()));
                }
                ports
                    .give_way(&[&options.state_dir, &run_dir, &pods_dir], options.owner)
                    .map_err(ClusterError::io("give the state folder to its owner"))?;
                Arc::new(ports.runtime(store.clone(), run_dir.join("plain"), options.owner))
            }
        };
        // Folders of the project and its state may be mounted, nothing else of the machine.
        let pids = Pids::default();
        let shared = Arc::new(Shared {
            store: store.clone(),
            runtime,
            images: images.clone(),
            prober: Arc::new(NetProber::new(sockets.clone())),
            recorder,
            faults,
            logs,
            pids: pids.clone(),
            metrics,
            ips: IpPool::default(),
            routed: routed.clone(),
            pods_dir,
            host_paths: vec![options.project_dir, options.state_dir],
            around: Surroundings::of_this_machine(options.owner, options.hidden),
        });
        let (kubelet_tx, command_rx) = mpsc::channel(1);
        let kubelet = Kubelet::new(shared, command_rx);
        let stop = running.stop_token();
        running.spawn("kubelet", async move { kubelet.run(stop).await });

        Ok(Cluster {
            store,
            images,
            api,
            dialer,
            routed,
            pids,
            ground,
            proxy,
            fronts,
            kubelet_tx,
            deciding,
            running,
            carrying,
            failed_rx: Mutex::new(failed_rx),
        })
    }

    /// Whether pods have namespaces and a network of their own.
    pub fn is_sandboxed(&self) -> bool {
        matches!(*self.ground, Ground::Sandbox(_))
    }

    /// How images run; pods that wait for one start when it is set.
    pub fn images(&self) -> &ImageTable {
        &self.images
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the API listens.
    pub fn api_addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// The API without a network, as `kube::Client::new` takes it.
    pub fn api_service(&self) -> ApiService {
        self.api.service()
    }

    /// Runs programs that must end with devenv, such as builds.
    pub fn host_programs(&self) -> HostPrograms {
        HostPrograms::new(self.ground.clone())
    }

    /// What people should know about how pods run here.
    pub fn notes(&self) -> Vec<String> {
        self.ground.note().into_iter().collect()
    }

    /// The ingress' counters.
    pub fn ingress_stats(&self) -> devenv_ingress::Stats {
        self.proxy.stats()
    }

    /// Where Cloud Run services listen, in the order of [`ClusterOptions::knative`].
    pub fn knative_addrs(&self) -> Vec<SocketAddr> {
        self.fronts.iter().map(|front| front.addr).collect()
    }

    /// Waits until a part of the cluster ends although nobody stopped it; its cause is logged.
    /// Only one caller at a time is told.
    pub async fn failed(&self) -> ClusterError {
        match self.failed_rx.lock().await.recv().await {
            Some(failed) => failed.into(),
            // The sender lives as long as this cluster.
            None => std::future::pending().await,
        }
    }

    /// The process of this machine that a pod's container is, by the pod's uid, while it runs.
    pub fn container_pid(&self, uid: &str, container: &str) -> Option<u32> {
        self.pids.get(uid, container)
    }

    /// Waits until no Ingress, Service or Cloud Run listener sends anything new to this
    /// address of a pod: they follow its EndpointSlices a moment later.
    pub async fn unrouted(&self, ip: Ipv4Addr) {
        self.routed.gone(ip).await;
    }

    /// Connects to an address of the cluster's network: of a pod, or a ClusterIP.
    ///
    /// # Errors
    /// What connect(2) says, or that the network is gone.
    pub async fn connect(&self, addr: SocketAddrV4) -> io::Result<TcpStream> {
        self.dialer.connect(addr).await
    }

    /// Carries connections of a host listener to the ready endpoints of a Service's port, until
    /// the cluster is shut down. Without a ready endpoint a connection is reset.
    ///
    /// # Errors
    /// When the listener is not usable.
    pub async fn forward(
        &self,
        listener: std::net::TcpListener,
        to: ServicePort,
    ) -> Result<(), ClusterError> {
        let what = || {
            format!(
                "forward a listener to service {}/{}",
                to.namespace, to.service
            )
        };
        listener
            .set_nonblocking(true)
            .map_err(ClusterError::io(what()))?;
        let listener = TcpListener::from_std(listener).map_err(ClusterError::io(what()))?;
        let store = self.store.clone();
        let balancer = Balancer::default();
        let order = move |client| {
            balancer.set(endpoints::of_port(&store, &to), None);
            balancer.order(client)
        };
        let faults = Faults::default();
        let (stop, tracker) = (self.carrying.stop_token(), self.carrying.tracker());
        let serving = forward::serve(
            listener,
            self.dialer.clone(),
            order,
            // Not from a pod: nobody can ask for faults.
            move |client| faults.path(client, None),
            stop.clone(),
            stop,
            tracker,
        );
        self.carrying.spawn("forwarded port", async move {
            serving.await;
            Ok::<(), io::Error>(())
        });
        Ok(())
    }

    /// Ends the cluster: requests in flight finish, then pods get SIGTERM in parallel and SIGKILL
    /// after `grace` (databases after the others), then the rest stops. Objects stay on disk.
    pub async fn shutdown(self, grace: Duration) {
        self.deciding.stop().await;
        let drain = grace.min(DRAIN_LIMIT);
        // The controllers that shared them have ended.
        let proxies = Arc::try_unwrap(self.fronts)
            .map(|all| all.into_iter().map(|f| f.proxy).collect())
            .unwrap_or_else(|_| Vec::new());
        let draining = proxies
            .into_iter()
            .chain(Arc::try_unwrap(self.proxy).ok())
            .map(|proxy| proxy.drain(drain));
        futures_util::future::join_all(draining).await;
        let (done_tx, done_rx) = oneshot::channel();
        if self
            .kubelet_tx
            .send(Command::Stop { grace, done_tx })
            .await
            .is_ok()
        {
            // Two groups, each killed after `grace`, which the kernel needs a moment for.
            let limit = grace * 2 + Duration::from_secs(12);
            if tokio::time::timeout(limit, done_rx).await.is_err() {
                warn!("not all pods ended in time; they are killed with the sandbox");
            }
        }
        self.running.stop().await;
        self.api.shutdown().await;
        self.carrying.stop().await;
        let (store, ground) = (self.store, self.ground);
        let closed = blocking("close the store", move || {
            let closed = store.close().map_err(ClusterError::from);
            // Takes everything that still runs in the sandbox with it.
            drop(ground);
            closed
        });
        if let Err(error) = closed.await {
            warn!(
                error = &error as &dyn std::error::Error,
                "the store was not closed cleanly"
            );
        }
    }
}

fn control(
    tasks: &Tasks,
    store: &Store,
    name: &'static str,
    controller: impl Controller + 'static,
) {
    let (store, stop) = (store.clone(), tasks.stop_token());
    tasks.spawn(
        name,
        async move { runtime::run(&store, controller, stop).await },
    );
}

fn fronts(
    listeners: Vec<std::net::TcpListener>,
    dialer: &Dialer,
) -> Result<Vec<Front>, ClusterError> {
    listeners
        .into_iter()
        .map(|listener| {
            let addr = listener
                .local_addr()
                .map_err(ClusterError::io("use a listener for Cloud Run services"))?;
            let options = ProxyOptions {
                connector: Arc::new(dialer.clone()),
                threads: 1,
                ..ProxyOptions::new(vec![listener])
            };
            Ok(Front {
                proxy: Proxy::start(options, Table::single(&[]))?,
                addr,
            })
        })
        .collect()
}

async fn start_dns(netd: &Arc<Netd>, store: &Store, tasks: &Tasks) -> Result<(), ClusterError> {
    let addr = SocketAddrV4::new(DNS, 53);
    let netd = netd.clone();
    let (udp, tcp) = blocking("bind the cluster's DNS", move || {
        Ok((netd.bind_udp(addr)?, netd.listen_tcp(addr)?))
    })
    .await?;
    let dns = Dns::new(
        store.clone(),
        Upstream::from_resolv_conf(Path::new("/etc/resolv.conf")),
    );
    let stop = tasks.stop_token();
    tasks.spawn("DNS", async move { dns.run(udp, tcp, stop).await });
    Ok(())
}

/// The way out of the cluster. Without it pods still reach each other: said, not fatal.
async fn start_way_out(netd: &Arc<Netd>, dialer: &Dialer, tasks: &Tasks) {
    let netd = netd.clone();
    let opened = blocking("open the way out of the cluster", move || {
        Ok(netd.way_out()?)
    })
    .await;
    match opened {
        Ok(listener) => {
            let (stop, connections) = (tasks.stop_token(), tasks.tracker());
            let dialer = dialer.clone();
            tasks.spawn("way out", egress::run(listener, dialer, stop, connections));
        }
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "pods cannot reach addresses outside the cluster"
        ),
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    f: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => Err(ClusterError::Io {
            what: what.to_owned(),
            source: io::Error::other(error),
        }),
    }
}

fn make_private(dir: &Path) -> Result<(), ClusterError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(ClusterError::io(format!(
            "make the folder {}",
            dir.display()
        )))
}

fn empty(dir: &Path) -> Result<(), ClusterError> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(ClusterError::io(format!(
                "empty the folder {}",
                dir.display()
            ))(error));
        }
    }
    make_private(dir)
}
