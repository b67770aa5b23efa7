//! kube-rs, in process and over TLS.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::support::Running;

fn map(name: &str, value: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("k".to_owned(), value.to_owned())]));
    map
}

/// Reads, writes, watches and errors through one client.
async fn exercise(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = maps
        .create(&PostParams::default(), &map("a", "1"))
        .await
        .unwrap();
    assert!(made.uid().is_some());

    let mut events = watcher(maps.clone(), watcher::Config::default()).boxed();
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(5), events.try_next())
            .await
            .expect("an event in time")
            .unwrap()
            .expect("a watcher never ends")
    };
    assert!(matches!(next().await, watcher::Event::Init));
    assert!(matches!(next().await, watcher::Event::InitApply(m) if m.name_any() == "a"));
    assert!(matches!(next().await, watcher::Event::InitDone));

    let mut stale = made.clone();
    stale
        .data
        .as_mut()
        .unwrap()
        .insert("k".to_owned(), "2".to_owned());
    maps.replace("a", &PostParams::default(), &stale)
        .await
        .unwrap();
    stale
        .data
        .as_mut()
        .unwrap()
        .insert("k".to_owned(), "3".to_owned());
    match maps.replace("a", &PostParams::default(), &stale).await {
        Err(kube::Error::Api(status)) => assert!(status.is_conflict(), "{status:?}"),
        other => panic!("{other:?}"),
    }
    let apply = PatchParams::apply("devenv").force();
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1", "y": "2"}});
    maps.patch("b", &apply, &Patch::Apply(&applied))
        .await
        .unwrap();
    let fewer = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1"}});
    let b = maps
        .patch("b", &apply, &Patch::Apply(&fewer))
        .await
        .unwrap();
    assert_eq!(b.data.unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(
        matches!(next().await, watcher::Event::Apply(m) if m.data.as_ref().unwrap()["k"] == "2")
    );
    assert!(matches!(next().await, watcher::Event::Apply(m) if m.name_any() == "b"));
    assert!(matches!(next().await, watcher::Event::Apply(m) if m.name_any() == "b"));
    assert!(matches!(next().await, watcher::Event::Delete(m) if m.name_any() == "a"));
    assert_eq!(
        maps.list(&ListParams::default().labels("none=here"))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn kube_in_process() {
    let running = Running::start().await;
    exercise(running.client()).await;
}

async fn over_tls(running: &Running) -> Client {
    // The tests' own process: whichever installs it first, it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = kube::config::Kubeconfig::read_from(running.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(text, &options);
    Client::try_from(config.await.unwrap()).unwrap()
}

#[tokio::test]
async fn kube_over_tls_with_the_kubeconfig() {
    let running = Running::start().await;
    let client = over_tls(&running).await;
    assert_eq!(client.default_namespace(), "default");
    exercise(client).await;
    use std::os::unix::fs::PermissionsExt as _;
    for file in ["kubeconfig", "tls/identity.json", "store.redb"] {
        let mode = std::fs::metadata(running.path(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn without_the_token_nothing_but_health_is_told() {
    let running = Running::start().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut text = kube::config::Kubeconfig::read_from(running.kubeconfig()).unwrap();
    text.auth_infos[0].auth_info.as_mut().unwrap().token = Some("wrong".to_owned().into());
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(text, &options);
    let client = Client::try_from(config.await.unwrap()).unwrap();
    match Api::<Pod>::default_namespaced(client.clone())
        .list(&ListParams::default())
        .await
    {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"))
        }
        other => panic!("{other:?}"),
    }
    let health = client
        .request_text(http::Request::get("/readyz").body(Vec::new()).unwrap())
        .await;
    assert_eq!(health.unwrap(), "ok");
}

#[tokio::test]
async fn streaming_lists() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    maps.create(&PostParams::default(), &map("a", "1"))
        .await
        .unwrap();
    let mut events = watcher(maps.clone(), watcher::Config::default().streaming_lists()).boxed();
    let mut told = Vec::new();
    while told.len() < 3 {
        let event = tokio::time::timeout(Duration::from_secs(5), events.try_next())
            .await
            .unwrap()
            .unwrap();
        told.push(match event.unwrap() {
            watcher::Event::Init => "init",
            watcher::Event::InitApply(_) => "apply",
            watcher::Event::InitDone => "done",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["init", "apply", "done"]);
}

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test]
async fn deployments_status_scale_and_logs() {
    let running = Running::start().await;
    let client = running.client();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let apply = PatchParams::apply("devenv").force();
    let made = deployments
        .patch("web", &apply, &Patch::Apply(&deployment(2, "i:1")))
        .await
        .unwrap();
    assert_eq!(made.spec.as_ref().unwrap().revision_history_limit, Some(10));
    let again = deployments
        .patch("web", &apply, &Patch::Apply(&deployment(2, "i:1")))
        .await
        .unwrap();
    assert_eq!(
        again.resource_version(),
        made.resource_version(),
        "the same again is no write"
    );

    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    deployments
        .patch_scale("web", &PatchParams::default(), &three)
        .await
        .unwrap();
    let status = Patch::Merge(
        json!({"spec": {"replicas": 9}, "status": {"replicas": 3, "observedGeneration": 2}}),
    );
    let after = deployments
        .patch_status("web", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        after.spec.as_ref().unwrap().replicas,
        Some(3),
        "a status write leaves the spec alone"
    );
    assert_eq!(after.status.as_ref().unwrap().replicas, Some(3));
    assert_eq!(after.metadata.generation, Some(2));
    let image = Patch::Strategic(
        json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"template": {"spec":
        {"containers": [{"name": "c", "image": "i:2"}]}}}, "status": {"replicas": 0}}),
    );
    let after = deployments
        .patch("web", &PatchParams::default(), &image)
        .await
        .unwrap();
    assert_eq!(
        after.status.unwrap().replicas,
        Some(3),
        "an ordinary write leaves the status alone"
    );
    let container = &after.spec.unwrap().template.spec.unwrap().containers[0];
    assert_eq!(
        (
            container.image.as_deref(),
            container.image_pull_policy.as_deref()
        ),
        (Some("i:2"), Some("IfNotPresent"))
    );

    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    let params = LogParams {
        tail_lines: Some(2),
        ..LogParams::default()
    };
    assert_eq!(
        pods.logs("p", &params).await.unwrap(),
        "default/p/c tail=Some(2)\n"
    );
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut followed = pods.log_stream("p", &params).await.unwrap().lines();
    let line = tokio::time::timeout(Duration::from_secs(5), followed.try_next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line.as_deref(), Some("default/p/c tail=None"));
    let params = LogParams {
        previous: true,
        ..LogParams::default()
    };
    match pods.logs("p", &params).await {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.contains("previous terminated container"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_identity_outlives_the_server() {
    let running = Running::start().await;
    let first = std::fs::read_to_string(running.kubeconfig()).unwrap();
    let identity = std::fs::read(running.path("tls/identity.json")).unwrap();
    let dir = running.path("");
    let Running { server, store, .. } = &running;
    let options = devenv_cluster::api::ApiOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        in_cluster: None,
        kubeconfig: dir.join("kubeconfig"),
        tls_dir: dir.join("tls"),
        project: "test".to_owned(),
        namespace: "default".to_owned(),
        logs: std::sync::Arc::new(crate::support::Logs),
        metrics: std::sync::Arc::new(crate::support::Metrics),
        server_version: None,
    };
    let second = devenv_cluster::api::ApiServer::start(store.clone(), options)
        .await
        .unwrap();
    assert_ne!(server.addr(), second.addr());
    assert_eq!(
        std::fs::read(running.path("tls/identity.json")).unwrap(),
        identity
    );
    let now = std::fs::read_to_string(running.kubeconfig()).unwrap();
    let swapped = first.replace(&server.addr().to_string(), &second.addr().to_string());
    assert_eq!(now, swapped, "only the address is another");
    second.shutdown().await;
}
