//! Cloud SQL beside the cluster: the Compose file's container on kind's network, reached as
//! the application's Service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::PoisonError;
use std::time::Duration;

use devenv_model::{CloudSql, Topology};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::KindTarget;
use super::cluster::NETWORK;
use crate::address;
use crate::cloudsql::{self, Account, ContainerServer, follow, service_of};
use crate::kubernetes::apply_own;
use crate::target::{Database, TargetError};

const MYSQL: u16 = 3306;
/// How long a listener rests after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

impl KindTarget {
    /// Starts the container, and makes the application's Service lead to it.
    pub(super) async fn cloud_sql(
        &self,
        topology: &Topology,
        config: &CloudSql,
    ) -> Result<Database, TargetError> {
        cloudsql::in_container(config, "a kind cluster")?;
        let namespace = &topology.project().namespace;
        let service = service_of(topology, &config.service)?;
        let state_dir = &self.options.state_dir;
        let account = Account::of(topology, state_dir)?;
        if let Some(object) = &account.secret {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            apply_own(&secrets, &config.secret, object).await?;
        }
        let account = account.credentials;
        let engine = self.engine.engine().clone();
        let run = self.options.run.as_deref();
        let folders = (self.options.root.as_path(), state_dir.as_path());
        let server = ContainerServer::up(engine, config, &account, run, folders, &|_| ()).await?;
        let server = server.on_network(NETWORK);
        let compose_project = server.project().to_owned();
        let image = server.image().await;
        let (place_tx, place_rx) = watch::channel(None);
        let places = server.places().map(move |place| {
            // Nobody forwards any more: the target is gone.
            let _ = place_tx.send(place.map(|(ip, _)| ip));
            Ok(place)
        });
        let way = match self.serves.endpoint_slices {
            true => follow::Way::EndpointSlice,
            false => follow::Way::Endpoints,
        };
        let (client, name) = (self.client.clone(), config.service.clone());
        follow::database(client, namespace.clone(), name, service, places, way).await?;
        let wanted = SocketAddr::new(IpAddr::V4(self.options.address), MYSQL);
        let bound = address::bind_or_next(wanted, "")?;
        let listener =
            TcpListener::from_std(bound.listener).map_err(|source| address::AddressError::Io {
                address: bound.address,
                source,
            })?;
        tokio::spawn(forward(listener, place_rx));
        let project = Some(compose_project);
        let database = cloudsql::database(config, account, bound.address, None, project);
        let database = Database {
            note: bound.note,
            ..database.await?
        };
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.database = Some(database.facts.clone());
        endpoints.images.extend(image);
        drop(endpoints);
        Ok(database)
    }
}

/// Carries connections to the container, wherever it is, until nobody knows any more where.
async fn forward(listener: TcpListener, mut place: watch::Receiver<Option<Ipv4Addr>>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = place.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((mut stream, _)) = accepted else {
            // Too many open files: the listener itself stays good.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // None: it is closed, as a server that is away would refuse.
        let Some(ip) = *place.borrow() else {
            continue;
        };
        tokio::spawn(async move {
            if let Ok(mut server) = TcpStream::connect((ip, MYSQL)).await {
                // Either side ends it.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            }
        });
    }
}
