# Makes the node of the files that were copied: runs in it, as its image is built.
set -eu

for command in kubeadm kubectl kubelet; do
    ln -s kubernetes "/usr/bin/$command"
done
# Where kind's files expect what Debian has elsewhere.
ln -s /usr/bin/containerd /usr/local/bin/containerd
mkdir -p /opt/cni /etc/kubernetes/manifests
ln -s /usr/lib/cni /opt/cni/bin
ln -sf /usr/lib/systemd/systemd /sbin/init
printf v1.20.2 >/kind/version
chmod 755 /kind/bin/* /usr/local/bin/*

# A node of kind starts containerd and the kubelet; what Debian starts on a machine would wait
# for devices, or change the kernel's settings for the machine outside.
units=/lib/systemd/system
rm -rf /etc/systemd/system/*.wants $units/multi-user.target.wants $units/local-fs.target.wants \
    $units/basic.target.wants $units/timers.target.wants
rm -f $units/sockets.target.wants/*udev* $units/sockets.target.wants/*initctl* \
    $units/sysinit.target.wants/systemd-tmpfiles-setup.service
systemctl mask systemd-binfmt.service systemd-sysctl.service getty.target
systemctl enable containerd.service kubelet.service undo-mount-hacks.service
# Else the machine's kernel log would be in every node's journal.
printf '[Journal]\nReadKMsg=no\n' >/etc/systemd/journald.conf

# Of each node its own.
rm -f /etc/machine-id /var/lib/dbus/machine-id /tmp/node.sh
