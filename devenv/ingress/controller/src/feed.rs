//! From changes in the API to tables.

use std::fmt::Debug;
use std::future::{pending, ready};

use devenv_ingress::{Compiled, Inputs, Table, compile};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tracing::{debug, error, warn};

use crate::cache::Cache;
use crate::convert;
use crate::slices::Source;
use crate::v1beta1;

/// What is to be served from now on.
pub(crate) enum Update {
    /// Routes whose endpoints are not known yet, so that requests are held for
    /// them. Neither ready nor to be reported.
    Routes(Table),
    /// Everything.
    Full(Compiled),
}

/// A change in one of the watches.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, on its way from a watch to its cache"
)]
enum Seen {
    Ingress(Event<Ingress>),
    Class(Event<IngressClass>),
    Service(Event<Service>),
    Slice(Event<EndpointSlice>),
    Endpoints(Event<Endpoints>),
}

/// Endpoints by what the API serves.
enum Backing {
    Slices(Cache<EndpointSlice>),
    Endpoints(Cache<Endpoints>),
}

/// All that is known, and the watches that tell more. Whoever calls
/// [`Feed::next`] drives the watches; nothing happens in between.
pub(crate) struct Feed {
    ingresses: Cache<Ingress>,
    classes: Cache<IngressClass>,
    services: Cache<Service>,
    backing: Backing,
    events: SelectAll<BoxStream<'static, Seen>>,
    /// Something that routing depends on, since the last table.
    changed: bool,
}

impl Feed {
    /// Watches all namespaces; an API that does not answer is asked again, with
    /// pauses of 0.8 to 30 s.
    pub fn new(client: &Client, source: Source) -> Feed {
        let (backing, endpoints) = match source {
            Source::SlicesV1 => (
                Backing::Slices(Cache::new()),
                watch(client, Seen::Slice).boxed(),
            ),
            Source::SlicesV1beta1 => (
                Backing::Slices(Cache::new()),
                watch(client, |event| Seen::Slice(converted(event))).boxed(),
            ),
            Source::Endpoints => (
                Backing::Endpoints(Cache::new()),
                watch(client, Seen::Endpoints).boxed(),
            ),
        };
        Feed {
            ingresses: Cache::new(),
            classes: Cache::new(),
            services: Cache::new(),
            backing,
            events: futures_util::stream::select_all([
                watch(client, Seen::Ingress).boxed(),
                watch(client, Seen::Class).boxed(),
                watch(client, Seen::Service).boxed(),
                endpoints,
            ]),
            changed: false,
        }
    }

    /// The Ingresses as last seen, for others to read.
    pub fn ingresses(&self) -> Store<Ingress> {
        self.ingresses.reader()
    }

    /// The first table: when all routes are known, and perhaps no endpoint yet.
    pub async fn routes(&mut self) -> Table {
        while !(self.ingresses.is_synced() && self.classes.is_synced() && self.services.is_synced())
        {
            self.see().await;
        }
        self.compile().table
    }

    /// The next table, as soon as something has changed that routing depends on;
    /// all that is known to have changed by then is in it. To be called after
    /// [`Feed::routes`].
    pub async fn next(&mut self) -> Update {
        while !self.changed {
            self.see().await;
        }
        // What is there already is taken along; nothing is waited for.
        while self.see().now_or_never().is_some() {}
        self.changed = false;
        let compiled = self.compile();
        if self.backing.is_synced() {
            Update::Full(compiled)
        } else {
            Update::Routes(compiled.table)
        }
    }

    /// Takes one event over.
    async fn see(&mut self) {
        let Some(seen) = self.events.next().await else {
            // Watches go on for ever.
            error!("all watches ended");
            return pending().await;
        };
        self.changed |= match seen {
            Seen::Ingress(event) => self.ingresses.apply(event),
            Seen::Class(event) => self.classes.apply(event),
            Seen::Service(event) => self.services.apply(event),
            Seen::Slice(event) => match &mut self.backing {
                Backing::Slices(cache) => cache.apply(event),
                Backing::Endpoints(_) => false,
            },
            Seen::Endpoints(event) => match &mut self.backing {
                Backing::Endpoints(cache) => cache.apply(event),
                Backing::Slices(_) => false,
            },
        };
    }

    fn compile(&self) -> Compiled {
        let services = self.services.objects();
        let coming = if self.backing.is_synced() {
            Vec::new()
        } else {
            // Their endpoints are on the way to here.
            let names = services.iter().map(|service| &service.metadata);
            names
                .filter_map(|meta| Some((meta.namespace.clone()?, meta.name.clone()?)))
                .collect()
        };
        let compiled = compile(&Inputs {
            ingresses: &self.ingresses.objects(),
            classes: &self.classes.objects(),
            services: &services,
            endpoint_slices: &self.backing.slices(),
            coming: &coming,
        });
        debug!(
            ingresses = compiled.accepted.len(),
            warnings = compiled.warnings.len(),
            "a new table"
        );
        compiled
    }
}

impl Backing {
    fn is_synced(&self) -> bool {
        match self {
            Backing::Slices(cache) => cache.is_synced(),
            Backing::Endpoints(cache) => cache.is_synced(),
        }
    }

    fn slices(&self) -> Vec<EndpointSlice> {
        match self {
            Backing::Slices(cache) => cache.objects(),
            Backing::Endpoints(cache) => cache.objects().iter().flat_map(convert::slices).collect(),
        }
    }
}

fn watch<K>(
    client: &Client,
    seen: impl Fn(Event<K>) -> Seen + Send + 'static,
) -> impl futures_util::Stream<Item = Seen> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(move |event| {
            ready(match event {
                Ok(event) => Some(seen(event)),
                // The version that the watch would go on from is forgotten: everyday, and the
                // watcher lists again.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        kind = %K::kind(&()),
                        "the API does not tell of changes; the last table stays in force"
                    );
                    None
                }
            })
        })
}

fn converted(event: Event<v1beta1::EndpointSlice>) -> Event<EndpointSlice> {
    match event {
        Event::Apply(slice) => Event::Apply(slice.into()),
        Event::Delete(slice) => Event::Delete(slice.into()),
        Event::Init => Event::Init,
        Event::InitApply(slice) => Event::InitApply(slice.into()),
        Event::InitDone => Event::InitDone,
    }
}
