#!/usr/bin/env bash
# The first process of a node: it makes the namespaces it was born in a machine, and reaps what is orphaned there.
# Arguments: the node's name and the cluster's folder.
set -eu
node=$1 root=$2
read -r pid _ </proc/self/stat # /proc is still that of the machine below: its number there
hostname "$node"
mount --bind "$root/etc/hosts" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
mount -t proc proc /proc
ip link set lo up
echo "$pid" >"$root/run/$node.new"
mv "$root/run/$node.new" "$root/run/$node.pid"
sleep infinity &
wait
