# How arenite is compiled for aarch64 and run on a Linux of that kind, on any machine with Debian's packages. Source it after lib.sh.
# Everything is kept in the user's cache folder: about 700 MB.

arm=${XDG_CACHE_HOME:-$HOME/.cache}/arenite-ci/aarch64

# debian PACKAGE…: unpacks Debian's packages into $arm/root. Their index is kept apart from that of this machine.
debian() {
    mkdir -p "$arm/apt/lists/partial" "$arm/apt/archives/partial" "$arm/root" "$scratch/debs"
    cat >"$arm/apt/conf" <<EOF
Dir::State "$arm/apt";
Dir::State::status "/dev/null";
Dir::Cache "$arm/apt";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
EOF
    (
        export APT_CONFIG=$arm/apt/conf
        cd "$scratch/debs"
        apt-get update -qq
        apt-get download -q "$@"
        local package
        for package in *.deb; do dpkg-deb -x "$package" "$arm/root"; done
        rm -f -- *.deb
    )
}

# Sets up a compiler with the standard libraries of both processors: that of rustup has this machine's alone.
arm_toolchain() {
    [ ! -e "$arm/complete" ] || return 0
    command -v apt-get >/dev/null || failed "the compiler for aarch64 comes from Debian's packages"
    rm -rf "$arm"
    local llvm
    debian rustc-web:amd64 libstd-rust-web-dev:{amd64,arm64}
    llvm=$(APT_CONFIG=$arm/apt/conf apt-cache depends --important rustc-web:amd64 libstd-rust-web-dev:amd64 |
        sed -nE 's/^ *Depends: (libstd-rust-web-[0-9.]+).*$/\1/p' | head -1)
    debian "$llvm:amd64" "$llvm:arm64"
    llvm=$(APT_CONFIG=$arm/apt/conf apt-cache depends --important "$llvm:amd64" | sed -nE 's/^ *Depends: (libllvm[0-9]+).*$/\1/p')
    debian "$llvm:amd64"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s --sysroot %s "$@"\n' \
        "$arm/root/usr/lib/x86_64-linux-gnu" "$arm/root/usr/bin/rustc" "$arm/root/usr" >"$arm/rustc"
    chmod +x "$arm/rustc"
    "$arm/rustc" --version
    touch "$arm/complete"
}

# arm_cargo COMMAND…: cargo with that compiler, for aarch64.
arm_cargo() {
    local command=$1
    shift
    RUSTC=$arm/rustc CARGO_TARGET_DIR=target/aarch64 cargo "$command" --target aarch64-unknown-linux-gnu "$@"
}

# Checks types alone: C code of dependencies is not compiled. `true` is its compiler.
arm_check() {
    arm_toolchain
    local tool
    for tool in CC CXX AR; do export "${tool}_aarch64_unknown_linux_gnu=true"; done
    arm_cargo check --workspace "$@"
}
export -f debian arm_toolchain arm_cargo arm_check
export arm
