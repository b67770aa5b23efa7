# Puts the images that kubeadm 1.20 asks for into this container's containerd. They are one
# layer under seven names: of what they hold the most is in each of them anyhow.
set -eu
cd /images
layer=/images/layer
mkdir -p $layer/usr/local/bin $layer/usr/lib/iptables $layer/etc $layer/tmp $layer/run $layer/var/lib/etcd

# with_libraries FILE: copies it, and the shared libraries it needs, to where they are here.
with_libraries() {
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$layer$(dirname "$file")"
        cp -nL "$file" "$layer$file"
    done
}

cp /usr/bin/kubernetes dns pause $layer/usr/local/bin/
for command in kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
    ln -s kubernetes $layer/usr/local/bin/$command
done
cp etcd /usr/local/bin/
with_libraries /usr/local/bin/etcd

# kube-proxy's tools. It looks for iptables by name, so that each of the two has a folder.
with_libraries /usr/sbin/conntrack
for kind in legacy nft; do
    with_libraries /usr/sbin/xtables-$kind-multi
    mkdir $layer/usr/lib/iptables/$kind
    for tool in iptables iptables-restore iptables-save ip6tables ip6tables-restore ip6tables-save; do
        ln -s /usr/sbin/xtables-$kind-multi $layer/usr/lib/iptables/$kind/$tool
    done
done
for extension in /usr/lib/*/xtables/*.so; do
    with_libraries "$extension"
done

tar -C $layer --owner=0 --group=0 -cf layer.tar .
digest=$(sha256sum layer.tar | cut -d' ' -f1)
architecture=$(dpkg --print-architecture)

# As `docker save` would write them.
entries=
# image NAME PROGRAM
image() {
    printf '%s' "{\"architecture\":\"$architecture\",\"os\":\"linux\",\"config\":{\
\"Env\":[\"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"],\
\"Entrypoint\":[\"/usr/local/bin/$2\"]},\
\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$digest\"]}}" >"$2.json"
    entries="$entries${entries:+,}\
{\"Config\":\"$2.json\",\"RepoTags\":[\"k8s.gcr.io/$1\"],\"Layers\":[\"layer.tar\"]}"
}
image kube-apiserver:v1.20.2 kube-apiserver
image kube-controller-manager:v1.20.2 kube-controller-manager
image kube-scheduler:v1.20.2 kube-scheduler
image kube-proxy:v1.20.2 kube-proxy
image etcd:3.4.13-0 etcd
image coredns:1.7.0 dns
image pause:3.2 pause
printf '[%s]' "$entries" >manifest.json
tar -cf images.tar ./*.json layer.tar

# Not unpacked: overlays on overlays can't be had, and the node unpacks what it starts.
containerd >containerd.log 2>&1 &
daemon=$!
tries=0
until ctr version >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
        cat containerd.log
        exit 1
    fi
    sleep 0.1
done
ctr --namespace k8s.io images import --no-unpack images.tar
ctr --namespace k8s.io images list --quiet
kill $daemon
wait $daemon || true
