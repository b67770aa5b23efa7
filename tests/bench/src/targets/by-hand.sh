# What is done by hand for the reference application in kind. Run in its folder.
NAMESPACE=so1-fase2
BASE="devenv-test/base:1"
DB="$CLUSTER-db"

build() {
    docker build -q -t hand/api1:"$1" --build-arg BASE="$BASE" services/seed/api1
    docker build -q -t hand/api2:"$1" --build-arg BASE="$BASE" services/seed/api2
    for name in api3 frontend; do
        docker build -q -t "hand/$name:$1" --build-arg BASE="$BASE" --build-arg PROGRAM=program \
            -f tests/offline/binary/Dockerfile "offline/$name"
    done
    # The same controller, as somebody would bring in one of their own.
    mkdir -p "$WORK/controller/files"
    cp -u "$DEVENV" "$WORK/controller/program"
    docker build -q -t hand/controller:1 --build-arg BASE="$BASE" --build-arg PROGRAM=program \
        -f tests/offline/binary/Dockerfile "$WORK/controller"
}

sql() {
    docker exec -i "$DB" mysql --protocol=tcp -h 127.0.0.1 -u telemetry -pbench telemetry 2>/dev/null
}

up() {
    # The ports of devenv's cluster are free: it is down.
    cat >"$WORK/cluster.yaml" <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    labels: {ingress-ready: "true"}
    extraPortMappings: [{containerPort: 80, hostPort: $PORT, listenAddress: 127.0.0.1}]
YAML
    kind create cluster --name "$CLUSTER" --image "$NODE" --config "$WORK/cluster.yaml" \
        --kubeconfig "$KUBECONFIG" --quiet
    docker run -d --name "$DB" --network kind -e MYSQL_ROOT_PASSWORD=bench -e MYSQL_DATABASE=telemetry \
        -e MYSQL_USER=telemetry -e MYSQL_PASSWORD=bench "$MYSQL"
    build 1
    kind load docker-image --name "$CLUSTER" hand/api1:1 hand/api2:1 hand/api3:1 hand/frontend:1 \
        hand/controller:1
    kubectl apply -f "$WORK/controller.json"
    until echo 'SELECT 1' | sql; do sleep 0.2; done
    cat services/migrations/*.sql | sql
    address=$(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' "$DB")
    mkdir -p kind/overlays/hand
    cat >kind/overlays/hand/kustomization.yaml <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../seed, front.yaml]
images:
  - {name: api1, newName: hand/api1, newTag: "1"}
  - {name: api2, newName: hand/api2, newTag: "1"}
  - {name: api3, newName: hand/api3, newTag: "1"}
YAML
    cat >kind/overlays/hand/front.yaml <<YAML
apiVersion: v1
kind: Secret
metadata: {name: cloudsql-credentials, namespace: $NAMESPACE}
stringData: {DB_USER: telemetry, DB_PASSWORD: bench, DB_NAME: telemetry}
---
apiVersion: v1
kind: Endpoints
metadata: {name: cloudsql, namespace: $NAMESPACE}
subsets: [{addresses: [{ip: $address}], ports: [{name: mysql, port: 3306}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend, namespace: $NAMESPACE}
spec:
  selector: {matchLabels: {app: frontend}}
  template:
    metadata: {labels: {app: frontend}}
    spec:
      containers:
        - name: frontend
          image: hand/frontend:1
          env: [{name: PORT, value: "8080"}, {name: API3_URL, value: "http://127.0.0.1"}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
YAML
    kubectl apply -k kind/overlays/hand
    kubectl -n "$NAMESPACE" wait --for=condition=Available deployment --all --timeout=180s
    kubectl -n ingress-devenv wait --for=condition=Available deployment --all --timeout=180s
}

rebuild() {
    tag=$(date +%s)
    echo "// $tag" >>services/seed/api2/src/main.js
    docker build -q -t "hand/api2:$tag" --build-arg BASE="$BASE" services/seed/api2
    kind load docker-image --name "$CLUSTER" "hand/api2:$tag"
    kubectl -n "$NAMESPACE" set image deployment/api2 "api2=hand/api2:$tag"
    kubectl -n "$NAMESPACE" rollout status deployment/api2 --timeout=120s
}

remove() {
    docker rm -fv "$DB" >/dev/null 2>&1 || true
    kind delete cluster --name "$CLUSTER" --kubeconfig "$KUBECONFIG" --quiet
    rm -rf kind/overlays/hand
}

case $1 in
build) build 1 ;;
up | rebuild | remove) "$1" ;;
esac
