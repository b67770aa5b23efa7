//! What pods see of the cluster's network, asked with real programs.

use devenv_cluster::kinds;
use serde_json::json;

use crate::rig::Rig;

pub async fn service_links() {
    let rig = Rig::start().await;
    rig.service("first-one", 5000);
    let ip = rig
        .get(&kinds::SERVICE, "first-one")
        .expect("there")
        .value()["spec"]["clusterIP"]
        .as_str()
        .expect("allocated")
        .to_owned();
    let show = "env | grep -E '^(FIRST_ONE|KUBERNETES)_(SERVICE|PORT=)' | sort";
    let master = "KUBERNETES_PORT=tcp://10.96.0.1:443\nKUBERNETES_SERVICE_HOST=10.96.0.1\n\
                  KUBERNETES_SERVICE_PORT=443\nKUBERNETES_SERVICE_PORT_HTTPS=443\n";
    let own = format!(
        "FIRST_ONE_PORT=tcp://{ip}:5000\nFIRST_ONE_SERVICE_HOST={ip}\nFIRST_ONE_SERVICE_PORT=5000\n"
    );
    assert_eq!(
        rig.run("linked", &["sh", "-c", show]).await,
        format!("{own}{master}")
    );
    rig.pod(
        "plain",
        json!({"restartPolicy": "Never", "enableServiceLinks": false,
            "containers": [{"name": "c", "image": "web", "command": ["sh", "-c", show]}]}),
    );
    assert_eq!(rig.until_ended("plain").await, master);
    rig.stop().await;
}

pub async fn api() {
    let rig = Rig::start().await;
    let kubeconfig =
        std::fs::read_to_string(rig.dir.path().join(".devenv/kubeconfig")).expect("a kubeconfig");
    let (_, authority) = kubeconfig
        .split_once("certificate-authority-data: ")
        .expect("an authority");
    let authority = authority.lines().next().expect("a line").trim();
    // The certificate is checked for each name; without a token the answer is 401.
    let code = "import base64,ssl,sys,urllib.request,urllib.error
context = ssl.create_default_context(cadata=base64.b64decode(sys.argv[1]).decode())
for host in ['kubernetes.default', 'kubernetes.default.svc.cluster.local', '10.96.0.1']:
    for path in ['/readyz', '/api/v1/namespaces']:
        try: print(urllib.request.urlopen(f'https://{host}{path}', context=context).status)
        except urllib.error.HTTPError as e: print(e.code)";
    assert_eq!(
        rig.run("asker", &["python3", "-c", code, authority]).await,
        "200\n401\n".repeat(3)
    );
    rig.stop().await;
}
