#!/usr/bin/env bash
# Installs what the tests need and the machine lacks; does nothing, quickly, when all is there.
#
#   tests/setup.sh            Debian packages, cargo-nextest and the extensions that `make test` runs
#   tests/setup.sh lint       cargo-deny and cargo-shear
#   tests/setup.sh bench      what `make test` needs, and nginx, wrk and oha
#   tests/setup.sh fuzz       a C++ compiler and cargo-fuzz
#   tests/setup.sh coverage   what `make test` needs, and cargo-llvm-cov with matching LLVM tools
#   tests/setup.sh guests     a compiler for WebAssembly, and the extensions that it builds
#   tests/setup.sh demo       a compiler for WebAssembly, and the two extensions that `make demo` shows
#   tests/setup.sh charts     Helm 3 and 4 and more, of Go modules, and the schemas of Kubernetes; under .tools/kubernetes
#   tests/setup.sh kubernetes what charts need, and a whole node of Kubernetes, of Go modules; under .tools/kubernetes too
#   tests/setup.sh scripting  what builds extensions in JavaScript and Python, under wasm-extensions/target
#
# Tools of cargo go to .tools/bin, at the versions of tests/tools.txt; nothing global is touched but Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH=$PWD/.tools/bin:$PATH

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Arguments: Debian packages. Installs the missing ones in one go.
need_packages() {
    command -v dpkg-query >/dev/null || die "no dpkg here: install by hand what Debian calls: $*"
    local present missing=() package
    present=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
    for package in "$@"; do
        [[ $present == *" installed:$package "* ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    local as_root=()
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || die "needs root for: apt-get install ${missing[*]}"
        as_root=(sudo -n)
    fi
    say "installing ${missing[*]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --yes -qq -o Dpkg::Use-Pty=0) log
    log=$(mktemp)
    # Package lists may be absent or old: fetch them only when the first try fails.
    if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 &&
        ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1
    then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install: ${missing[*]}"
    fi
    rm -f "$log"
}

# Arguments: command, package. For programs that several packages provide.
need_command() {
    PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || need_packages "$2"
}

# Arguments: program, crate@version. Into .bench/, so that nothing global is touched.
need_crate() {
    [[ -x .bench/bin/$1 ]] && return
    say "building $2 into .bench/ (takes minutes, once)"
    cargo install --quiet --locked --root .bench "$2" || die "cargo could not install $2"
}

# Arguments: programs of tests/tools.txt. Into .tools/bin: ready-made from PyPI where there are python3 with pip and a
# wheel for this platform, else as they are on the PATH, else built.
need_tools() {
    local tool line version unpacked
    for tool in "$@"; do
        line=$(grep "^astral-dev-toolchain-$tool==" tests/tools.txt)
        version=${line#*==}
        version=${version%% *}
        [[ -e .tools/$tool-$version ]] && continue
        mkdir -p .tools/bin
        unpacked=$(mktemp -d)
        printf '%s\n' "$line" >"$unpacked/requirements.txt"
        if python3 -m pip --quiet --disable-pip-version-check --no-input --retries 1 --timeout 15 install --no-deps \
            --require-hashes --only-binary :all: --target "$unpacked" -r "$unpacked/requirements.txt" >/dev/null 2>&1
        then
            mv "$unpacked/bin/$tool" .tools/bin/
            touch ".tools/$tool-$version"
            say "installed $tool $version into .tools/"
        elif ! command -v "$tool" >/dev/null; then
            say "building $tool $version into .tools/ (takes minutes, once)"
            cargo install --quiet --locked --root .tools "$tool@$version" || die "cargo could not install $tool"
            touch ".tools/$tool-$version"
        fi
        rm -rf "$unpacked"
    done
}

for_tests() {
    need_packages docker-registry erlang-base erlang-crypto erlang-inets erlang-ssl curl jq procps
    need_tools cargo-nextest
}

for_lint() {
    need_tools cargo-deny cargo-shear
}

for_bench() {
    # Where an init system runs, Debian starts the packaged nginx on port 80. The benchmark
    # runs its own and does not need that one.
    need_command nginx nginx-light
    need_command wrk wrk
    # Its default features, though the benchmark wants no TLS: oha 1.16 does not compile without.
    need_crate oha oha@1.16.0
}

for_fuzz() {
    need_command c++ g++
    need_tools cargo-fuzz
}

for_coverage() {
    need_tools cargo-llvm-cov
    # llvm-cov must read what the compiler's LLVM wrote: rustup's own tools, or Debian's of that version.
    if [[ ! -x $(rustc --print target-libdir)/../bin/llvm-cov ]]; then
        need_packages "llvm-$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
    fi
}

# Arguments: the extensions to build, by their crates' names; all of them when there are none.
for_guests() {
    local target=wasm32-unknown-unknown
    # rustup's compiler where it has the target or can fetch it; Debian's otherwise, or where asked for.
    if [[ ${BEAMLINE_GUEST_COMPILER-} == debian ]] || ! command -v rustup >/dev/null ||
        ! { [[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] ||
            timeout 120 rustup --quiet target add $target >/dev/null 2>&1; }
    then
        need_packages rustc-web cargo-web rust-web-src lld-19
    fi
    wasm-extensions/build.sh "$@" >/dev/null
}

# Built of the Go modules that tests/kubernetes/tools pins, and from PyPI. Says what is missing and fails where there is no Go.
for_charts() {
    local tools=.tools/kubernetes here=tests/kubernetes version
    command -v go >/dev/null || die "needs Go 1.26 for the charts' tests: https://go.dev/doc/install"
    need_packages curl openssl python3
    if ! cmp -s $here/tools/go.sum $tools/go.sum; then
        say "building Helm and more into $tools/ (takes minutes, once)"
        mkdir -p $tools/bin
        module_version() { sed -n "s#^\t$1 v\([0-9.]*\).*#\1#p" $here/tools/go.mod | head -1; }
        # Arguments: program, package, module whose version it says.
        build() {
            local stamp=
            [[ -z ${3-} ]] || stamp="-X $3/internal/version.version=v$(module_version "$3")"
            (cd $here/tools && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w $stamp" \
                -o "$OLDPWD/$tools/bin/$1" "$2") || die "go could not build $1"
        }
        build helm3 helm.sh/helm/v3/cmd/helm helm.sh/helm/v3
        build helm4 helm.sh/helm/v4/cmd/helm helm.sh/helm/v4
        build helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest
        build helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs
        cp $here/tools/go.sum $tools/
    fi
    if ! cmp -s $here/requirements.txt $tools/requirements.txt; then
        say "installing the schemas of Kubernetes into $tools/"
        rm -rf $tools/python
        python3 -m pip --quiet --disable-pip-version-check --no-input install --no-deps --require-hashes \
            --only-binary :all: --target $tools/python -r $here/requirements.txt 2>/dev/null ||
            die "pip could not install kubernetes-validate"
        cp $here/requirements.txt $tools/
    fi
}

# Kubernetes, containerd and DNS for tests/kubernetes/node.sh, of the Go modules that cluster/ and node/ pin there.
for_kubernetes() {
    ((EUID == 0)) || die "a node of Kubernetes needs root"
    for_charts
    need_packages runc containernetworking-plugins iptables conntrack iproute2 buildah procps util-linux docker-registry busybox-static
    if ! compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
        # Debian would otherwise start a database with the installation.
        mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        need_packages postgresql
    fi
    local tools=.tools/kubernetes here=tests/kubernetes sources version stamp=k8s.io/component-base/version
    sources=$(cat $here/{cluster,node,crds}/go.* $here/cluster/*.go $here/node/*/*.go | sha256sum)
    [[ "$(cat $tools/node.sources 2>/dev/null)" != "$sources" ]] || return 0
    say "building a node of Kubernetes into $tools/ (17 minutes of processor time, once)"
    local out=$PWD/$tools/bin
    module_version() { sed -n "s#^\t$1 v\([0-9.]*\).*#\1#p" "$here/$2/go.mod" | head -1; }
    # Arguments: folder, program, package, more flags of the linker.
    build_node() {
        (cd "$here/$1" && CGO_ENABLED=0 nice -n 10 go build -trimpath -buildvcs=false -tags 'no_btrfs no_devmapper no_zfs' \
            -ldflags "-s -w ${4-}" -o "$out/$2" "$3") || die "go could not build $2"
    }
    # Without these the API server says v0.0.0, and Helm's charts see the wrong capabilities.
    version=$(module_version k8s.io/kubernetes cluster)
    build_node cluster cluster . "-X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=$(cut -d. -f2 <<<"$version") -X $stamp.gitTreeState=clean"
    ln -sfn cluster "$out/kubectl"
    version=$(module_version github.com/containerd/containerd/v2 node)
    local program
    for program in containerd containerd-shim-runc-v2 ctr; do
        build_node node $program github.com/containerd/containerd/v2/cmd/$program "-X github.com/containerd/containerd/v2/version.Version=$version"
    done
    build_node node dns ./dns
    build_node node pause ./pause
    build_node node router ./router
    # The definitions that monitors and certificates of the charts are held to.
    mkdir -p $tools/crds
    local definitions
    definitions=$(cd $here/crds && go mod download -json github.com/prometheus-operator/prometheus-operator github.com/cert-manager/cert-manager) ||
        die "go could not download the definitions of monitors and certificates"
    local folder file
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$definitions" | while read -r folder; do
        for file in "$folder"/example/prometheus-operator-crd/*_{servicemonitors,podmonitors,prometheusrules}.yaml \
            "$folder"/deploy/crds/cert-manager.io_{certificates,issuers}.yaml; do
            [[ ! -e $file ]] || install -m 0644 -t $tools/crds "$file"
        done
    done
    printf '%s\n' "$sources" >$tools/node.sources
}

# From the registries' packages at the versions that the projects pin.
for_scripting() {
    local js=wasm-extensions/target/js python=wasm-extensions/target/python lock=wasm-extensions/js/pii-guard/package-lock.json
    need_command node nodejs
    need_command npm npm
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || die "needs Node.js 20 or newer, not $(node --version)"
    if ! cmp -s $lock $js/installed.json; then
        say "installing the tools for JavaScript into $js/"
        mkdir -p $js
        cp wasm-extensions/js/pii-guard/package.json $lock $js/
        # Not `npm ci`, which wants every platform's optional packages in the lock file.
        npm --loglevel error --prefix $js install --ignore-scripts --no-audit --no-fund >/dev/null || die "npm could not install the tools"
        cp $lock $js/installed.json
    fi

    need_command python3 python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer, not $(python3 --version)"
    python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
    if ! cmp -s wasm-extensions/python/pii-guard/requirements.txt $python/requirements.txt; then
        say "installing the tools for Python into $python/"
        python3 -m venv --clear $python
        $python/bin/pip install --quiet --disable-pip-version-check -r wasm-extensions/python/pii-guard/requirements.txt ||
            die "pip could not install the tools"
        cp wasm-extensions/python/pii-guard/requirements.txt $python/
    fi
}

case ${1-} in
    '') for_tests; for_guests ;;
    lint) for_lint ;;
    bench) for_tests; for_bench ;;
    fuzz) for_fuzz ;;
    coverage) for_tests; for_guests; for_coverage ;;
    guests) for_guests ;;
    demo) for_guests pii-guard latency-scorer ;;
    charts) for_charts ;;
    kubernetes) for_kubernetes ;;
    scripting) for_scripting ;;
    *) die "unknown mode '$1': nothing, lint, bench, fuzz, coverage, guests, demo, charts, kubernetes or scripting" ;;
esac
