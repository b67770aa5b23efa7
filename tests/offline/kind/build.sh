#!/bin/bash
# Makes all that the Dockerfile beside this takes, of Debian's packages and source archives:
#
#   build.sh FETCHED WORK
#
# leaves it in WORK/context.
set -euo pipefail
fetched=$(realpath "$1")
work=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
context=$work/context
version=1.20.2

said=$SECONDS
said() {
    echo "== $1: $((SECONDS - said)) s"
    said=$SECONDS
}

# Unpacked and not installed: this machine may have another Go, or none.
for package in "$fetched"/*.deb; do
    dpkg -x "$package" "$work/debian"
done
export GOROOT=$work/debian/usr/lib/go-1.19
export PATH=$GOROOT/bin:$PATH
export GOPATH=$work/go GOCACHE=$work/go-cache GOTMPDIR=$work GOFLAGS= GO111MODULE=off CGO_ENABLED=0
# The compiler collects garbage less often: a fifth of its time for a few hundred MB.
export GOGC=400

# The place that its generator of code insists on.
source=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$source" "$context"/{bin,kind}
tar -xf "$fetched"/kubernetes_*.orig.tar.* -C "$source" --strip-components=1 --no-same-owner \
    --exclude="kubernetes-$version"/{CHANGELOG,cluster,docs,test}
tar -xf "$fetched"/kind_*.orig.tar.* -C "$context/kind" --strip-components=4 --no-same-owner \
    --wildcards '*/images/base/files/*'
cp -r "$here"/{Dockerfile,files,images.sh,node.sh} "$context"
cd "$source"
said 'unpacked'

# Its own reflect2 reads maps as Go laid them out before 1.18, and kubeadm would crash.
reflect2=vendor/github.com/modern-go/reflect2
rm -r "$reflect2"
cp -r "$work/debian/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect2"

# `0::/` in /proc/self/cgroup (version 2, mounted beside version 1) is no controller. Counted as
# one it is never found, the search goes on to the mounts that kind has put over the first ones,
# and the kubelet says that its root group does not exist.
cgroups=vendor/github.com/opencontainers/runc/libcontainer/cgroups/v1_utils.go
sed -i '/^func getCgroupMountsV1/,/^}/ s/^\treturn getCgroupMountsHelper/\tdelete(allMap, "")\n&/' \
    "$cgroups"
grep -q 'delete(allMap, "")' "$cgroups"

# The one generated file that the archive lacks; the build of upstream would write all others anew.
mapfile -t described < <(grep -rl --include='*.go' '^// *+k8s:openapi-gen=' pkg cmd vendor/k8s.io/*/ |
    grep -v -e /code-generator/ -e /sample-apiserver/ | xargs dirname | sort -u)
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
"$work/openapi-gen" -i "$(printf 'k8s.io/kubernetes/%s,' "${described[@]}" | sed 's/,$//')" \
    -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h /dev/null -r "$work/openapi-violations"
said 'described the API'

cp -r "$here/go" cmd/devenv
versions=
for package in client-go/pkg/version component-base/version; do
    for value in gitVersion=v$version gitMajor=1 gitMinor=20 gitTreeState=archive; do
        versions+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.$value"
    done
done
# Without the clouds' and Docker's own client libraries, which no node here needs and which are
# much of the code, and without what only debuggers read.
go build -trimpath -tags providerless,dockerless -gcflags=all=-dwarf=false \
    -ldflags "-s -w$versions" -o "$context/bin/" ./cmd/devenv/...
cp "$work/debian/usr/bin/etcd" "$context/bin/"
said 'compiled'
