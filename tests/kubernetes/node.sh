#!/usr/bin/env bash
# A whole one-node Kubernetes on this machine, of Go modules and Debian's packages: etcd, API server, controllers,
# scheduler, kube-proxy and kubelet from cluster/, containerd and CoreDNS from node/, runc and the network plugins from
# Debian. It listens in a network namespace of its own, so nothing here meets the machine's ports. Needs root, and Linux.
#
#   node.sh up                         a Ready node, in about ten seconds
#   node.sh run COMMAND…               beside the cluster, in its network: kubectl, helm3, helm4 or a test
#   node.sh shell                      the same, with a shell
#   node.sh load TAG CONTEXT [OPTION…] builds a Dockerfile with buildah, and gives the image to the node
#   node.sh give TAG                   gives an image that buildah has
#   node.sh down                       leaves nothing behind
#
# BEAMLINE_NODE is its directory (/var/tmp/beamline-node): short, because sockets are in it.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
bin=$(realpath "$here/../../.tools/kubernetes/bin")
dir=${BEAMLINE_NODE:-/var/tmp/beamline-node}
ns=beamline-node node=10.244.255.1
export PATH="$bin:$PATH"

die() { echo "node: $*" >&2; exit 1; }

inside() { nsenter --net=/run/netns/$ns "$@"; }

kubectl() { KUBECONFIG=$dir/admin.kubeconfig inside "$bin/cluster" kubectl "$@"; }

start() { # name, command…
    # In a session of its own: what is typed at a terminal is not for these.
    setsid nsenter --net=/run/netns/$ns "${@:2}" >"log/$1.log" 2>&1 </dev/null &
    echo $! >"run/$1.pid"
}

until_true() { # what is waited for, seconds, command…
    for _ in $(seq 1 $(($2 * 4))); do "${@:3}" >/dev/null 2>&1 && return; sleep 0.25; done
    die "$1 did not come; see $dir/log"
}

# `ip netns exec` would hide /sys/fs/cgroup from the kubelet: hence nsenter everywhere. A bridge stands for the node's
# own interface, because not every kernel has dummy devices.
network() {
    ip netns add $ns
    ip -n $ns link set lo up
    ip -n $ns link add node0 type bridge
    ip -n $ns address add $node/32 dev node0
    ip -n $ns link set node0 up
    ip -n $ns route replace default dev node0
    inside sysctl -qw net.ipv4.ip_forward=1
    cat >cni/10-pods.conflist <<C
{"cniVersion":"1.0.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$dir/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}},{"type":"loopback"}]}
C
}

leaf() { # name, subject, alternative names
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "pki/$1.key" -out "pki/$1.csr" 2>/dev/null
    openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 30 -out "pki/$1.crt" \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${3:-DNS:$1}") 2>/dev/null
    cat >"$1.kubeconfig" <<C
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $dir/pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $dir/pki/$1.crt, client-key: $dir/pki/$1.key}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
C
}

control_plane() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout pki/ca.key -out pki/ca.crt 2>/dev/null
    openssl genrsa -out pki/sa.key 2048 2>/dev/null
    leaf apiserver /CN=kube-apiserver IP:127.0.0.1,IP:10.96.0.1,IP:$node,DNS:localhost,DNS:kubernetes.default.svc
    leaf admin /O=system:masters/CN=admin
    leaf controllers /CN=system:kube-controller-manager
    leaf scheduler /CN=system:kube-scheduler
    leaf kubelet /O=system:nodes/CN=system:node:node0
    leaf proxy /CN=system:kube-proxy

    start etcd cluster etcd --data-dir etcd --listen http://127.0.0.1:2379
    # With aggregator routing the API server calls webhooks at the endpoints behind their Service.
    start apiserver cluster kube-apiserver --etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.96.0.0/24 \
        --bind-address=0.0.0.0 --advertise-address=$node --secure-port=6443 --client-ca-file=pki/ca.crt \
        --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --authorization-mode=Node,RBAC \
        --service-account-key-file=pki/sa.key --service-account-signing-key-file=pki/sa.key \
        --service-account-issuer=https://kubernetes.default.svc --enable-admission-plugins=NodeRestriction \
        --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
        --kubelet-preferred-address-types=InternalIP --enable-aggregator-routing=true --allow-privileged=true
    until_true "the API server" 120 kubectl get --raw /readyz
    own() { echo --authentication-kubeconfig="$1" --authorization-kubeconfig="$1" --kubeconfig="$1" --leader-elect=false --bind-address=127.0.0.1; }
    # shellcheck disable=SC2046
    start controllers cluster kube-controller-manager $(own controllers.kubeconfig) --use-service-account-credentials \
        --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt
    # shellcheck disable=SC2046
    start scheduler cluster kube-scheduler $(own scheduler.kubeconfig)
    start proxy cluster kube-proxy --kubeconfig proxy.kubeconfig --hostname-override node0 --cluster-cidr 10.244.0.0/24 \
        --proxy-mode iptables
    printf '.:53 {\n  bind %s\n  errors\n  kubernetes cluster.local {\n    kubeconfig %s/admin.kubeconfig\n  }\n}\n' \
        $node "$dir" >Corefile
    start dns dns -conf Corefile
}

# Without CAP_SYS_RESOURCE runc cannot lower oom_score_adj; without restrict_oom_score_adj no pod starts.
runtime() {
    cat >containerd.toml <<C
version = 3
root = "$dir/containerd/root"
state = "$dir/containerd/state"
[grpc]
  address = "$dir/run/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$dir/hosts"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "$dir/cni"
    bin_dirs = ["/usr/lib/cni"]
C
    start containerd containerd -c containerd.toml
    until_true containerd 60 test -S run/containerd.sock
    own_image pause 65535
    own_image router 1000
}

own_image() { # program of node/, user
    local context
    context=$(mktemp -d)
    cp "$bin/$1" "$context"
    printf 'FROM scratch\nCOPY %s /%s\nUSER %s:%s\nENTRYPOINT ["/%s"]\n' "$1" "$1" "$2" "$2" "$1" >"$context/Dockerfile"
    load "localhost/$1:1" "$context"
    rm -rf "$context"
}

kubelet() {
    cat >kubelet.yaml <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$dir/run/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
maxPods: 240
enforceNodeAllocatable: []
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: "1Mi", nodefs.inodesFree: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDomain: cluster.local
clusterDNS: [$node]
resolvConf: ""
address: 0.0.0.0
C
    start kubelet cluster kubelet --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override node0 \
        --root-dir "$dir/kubelet" --node-ip $node
    until_true "the node" 120 kubectl wait --for=condition=Ready node/node0 --timeout=1s
    until_true "the default service account" 60 kubectl get serviceaccount default
}

up() {
    ((EUID == 0)) || die "needs root"
    [[ ! -e /run/netns/$ns ]] || die "there is one already in $dir: take it down first, by make k8s-down"
    mkdir -p "$dir"
    cd "$dir"
    mkdir -p pki log run cni etcd containerd kubelet hosts
    ls /run/netns 2>/dev/null | grep '^cni-' >run/foreign-netns || true
    network
    control_plane
    runtime
    kubelet
    kubectl get nodes -o wide
}

load() { # tag, context, options…
    buildah bud --quiet --isolation chroot --tag "$1" "${@:3}" "$2" >/dev/null
    give "$1"
}

give() { # tag
    local archive
    archive=$(mktemp -u).tar
    buildah push --quiet "$1" "docker-archive:$archive:$1" >/dev/null
    "$bin/ctr" --address "$dir/run/containerd.sock" --namespace k8s.io images import "$archive" >/dev/null 2>&1
    rm -f "$archive"
}

stop() { # names…: SIGTERM, then SIGKILL after five seconds
    local name
    for name; do kill "$(cat "run/$name.pid" 2>/dev/null)" 2>/dev/null || true; done
    for _ in $(seq 1 20); do
        for name; do kill -0 "$(cat "run/$name.pid" 2>/dev/null)" 2>/dev/null && sleep 0.25 && continue 2; done
        return 0
    done
    for name; do kill -9 "$(cat "run/$name.pid" 2>/dev/null)" 2>/dev/null || true; done
}

down() {
    set +e
    cd "$dir" 2>/dev/null || return 0
    kubectl delete deployments,statefulsets,daemonsets,jobs,pods --all --all-namespaces --grace-period=1 --timeout=20s >/dev/null 2>&1
    stop kubelet
    # Of this directory's containerd only.
    for shim in $(pgrep -f -- "containerd-shim-runc-v2 .*-address $dir/run/containerd.sock"); do kill -9 "$shim"; done
    stop containerd proxy dns scheduler controllers
    stop apiserver
    stop etcd
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r -n 1 umount -l
    ls /run/netns 2>/dev/null | grep '^cni-' | grep -vxF -f run/foreign-netns | xargs -r -n 1 ip netns delete
    ip netns delete $ns
    cd / && rm -rf "$dir"
}

run() {
    [[ -e /run/netns/$ns ]] || die "there is no node: make k8s-up"
    export KUBECONFIG=$dir/admin.kubeconfig
    exec nsenter --net=/run/netns/$ns "$@"
}

case ${1-} in
    up) up ;;
    down) down ;;
    load) load "${@:2}" ;;
    give) give "$2" ;;
    run) run "${@:2}" ;;
    shell)
        echo "kubectl, helm3 and helm4 talk to the node; exit leaves it running." >&2
        run "${SHELL:-bash}" ;;
    *) die "up, down, run, shell, load or give" ;;
esac
