# How arenite is compiled for aarch64 and run on a Linux of that kind, on any machine with Debian's packages. Source it
# after lib.sh. Everything is kept in the user's cache folder: about 700 MB.

arm=${XDG_CACHE_HOME:-$HOME/.cache}/arenite-ci/aarch64

# [root=FOLDER] debian PACKAGE…: unpacks packages of Debian into $arm/root or this folder. Their index is kept apart
# from that of this machine.
debian() {
    local root=${root:-$arm/root}
    mkdir -p "$arm/apt/lists/partial" "$arm/apt/archives/partial" "$root" "$scratch/debs"
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
        for package in *.deb; do dpkg-deb -x "$package" "$root"; done
        rm -f -- *.deb
    )
}

# Whether Rust's compiler has the standard library of aarch64: `rustup target add aarch64-unknown-linux-gnu`.
has_arm() {
    compgen -G "$(rustc --print target-libdir --target aarch64-unknown-linux-gnu)/libstd-*.rlib" >/dev/null
}

# Sets up Debian's compiler, with the standard libraries of both processors, where Rust's lacks the one of aarch64.
arm_toolchain() {
    ! has_arm || return 0
    export RUSTC=$arm/rustc
    [ ! -e "$arm/complete" ] || return 0
    command -v apt-get >/dev/null || failed "the compiler for aarch64 comes from Debian's packages"
    rm -rf "$arm"
    local library llvm
    debian rustc-web:amd64 libstd-rust-web-dev:{amd64,arm64}
    library=$(APT_CONFIG=$arm/apt/conf apt-cache depends --important rustc-web:amd64 libstd-rust-web-dev:amd64 |
        sed -nE 's/^ *Depends: (libstd-rust-web-[0-9.]+).*$/\1/p' | head -1)
    debian "$library:amd64" "$library:arm64"
    llvm=$(APT_CONFIG=$arm/apt/conf apt-cache depends --important "$library:amd64" | sed -nE 's/^ *Depends: (libllvm[0-9]+).*$/\1/p')
    debian "$llvm:amd64"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s --sysroot %s "$@"\n' \
        "$arm/root/usr/lib/x86_64-linux-gnu" "$arm/root/usr/bin/rustc" "$arm/root/usr" >"$arm/rustc"
    chmod +x "$arm/rustc"
    "$arm/rustc" --version
    touch "$arm/complete"
}

# arm_cargo COMMAND…: cargo for aarch64.
arm_cargo() {
    local command=$1
    shift
    CARGO_TARGET_DIR=target/aarch64 cargo "$command" --target aarch64-unknown-linux-gnu "$@"
}

# Checks types alone: C code of dependencies is not compiled. `true` is its compiler.
arm_check() {
    arm_toolchain
    local tool
    for tool in CC CXX AR; do export "${tool}_aarch64_unknown_linux_gnu=true"; done
    arm_cargo check "$@"
}
export -f debian has_arm arm_toolchain arm_cargo arm_check
export arm

# The linker and C compiler for aarch64 is zig's, which PyPI has. It does not know these flags of gcc.
arm_compiler() {
    arm_toolchain
    if [ ! -x "$arm/cc" ]; then
        python3 -m venv "$arm/zig"
        "$arm/zig/bin/pip" install --quiet --disable-pip-version-check ziglang
        cat >"$arm/cc" <<EOF
#!/bin/bash
for word in "\$@"; do
    shift
    case \$word in --target=* | -Wl,--no-undefined-version) ;; *) set -- "\$@" "\$word" ;; esac
done
exec "$arm/zig/bin/python" -m ziglang cc -target aarch64-linux-gnu.2.17 "\$@"
EOF
        printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "$arm/zig/bin/python" >"$arm/ar"
        chmod +x "$arm/cc" "$arm/ar"
    fi
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$arm/cc
    export CC_aarch64_unknown_linux_gnu=$arm/cc AR_aarch64_unknown_linux_gnu=$arm/ar
}

# A Linux of that kind with Python and numpy, in $arm/system; its kernel is $arm/linux.
arm_system() {
    [ ! -e "$arm/linux" ] || return 0
    local image package packages=()
    debian libc6:arm64
    image=$(APT_CONFIG=$arm/apt/conf apt-cache pkgnames linux-image-6.1 | grep -E '^linux-image-6\.1\.0-[0-9]+-cloud-arm64$' | sort -V | tail -1)
    for package in busybox-static libc6 libgcc-s1 libstdc++6 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 \
        libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1; do
        packages+=("$package:arm64")
    done
    mkdir -p "$arm/system/numpy"
    root=$arm/system debian "${packages[@]}" "$image:arm64"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
        --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --dest "$scratch" numpy
    python3 -m zipfile -e "$scratch"/numpy-*.whl "$arm/system/numpy"
    mv "$arm/system"/boot/vmlinuz-* "$arm/linux"
    rm -rf "$arm/system"/{boot,lib/modules,usr/share}
}

# Builds tests of the library, four examples and the wheels, and runs them on that Linux, emulated with four cores.
arm_run() {
    arm_compiler
    arm_system
    local system=$scratch/system example wheel built=target/aarch64/aarch64-unknown-linux-gnu/debug
    cp -a "$arm/system" "$system"
    mkdir -p "$system"/{proc,sys,dev,tmp,run,arenite/package}
    # Without `points`: an emulated core takes longer under the engine's lock than that allows.
    cp "$(arm_cargo test --no-run -p arenite --lib --features ndarray,sandbox 2>&1 | tee >(cat >&2) |
        sed -nE 's,.*unittests src/lib\.rs \((.*)\)$,\1,p')" "$system/arenite/unit-tests"
    for example in square kmeans sort actor; do
        arm_cargo build -p arenite --features sandbox --example "$example"
        cp "$built/examples/$example" "$system/arenite/"
    done
    CARGO_TARGET_DIR=target/aarch64 packaging/release.sh "$scratch/wheels" aarch64
    for wheel in "$scratch"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$system/arenite/package"; done
    mv "$system"/arenite/package/arenite_cli-*.data/scripts/arenite "$system/arenite/"
    cp -r samples "$system/arenite/"
    # Where a unit test looks for it.
    mkdir -p "$system$PWD/tests/fuzz"
    cp -r tests/fuzz/corpus "$system$PWD/tests/fuzz/"
    cp .ci/aarch64-init "$system/init"
    chmod +x "$system/init" "$system/arenite/arenite"
    python3 .ci/initramfs.py "$system" "$scratch/initramfs"
    # Emulated cores take turns in earnest: what depends on the order of memory accesses is seen here. Most of the
    # emulator's time would be spent on signatures of pointers (`pauth`).
    timeout 3000 qemu-system-aarch64 -M virt -cpu max,pauth=off -smp 4 -m 4096 -nic none -nographic -no-reboot -kernel "$arm/linux" \
        -initrd "$scratch/initramfs" -append "console=ttyAMA0 panic=-1 quiet" | tee "$scratch/aarch64.log"
    grep -q '^all of it passed' "$scratch/aarch64.log" || failed "aarch64"
}
export -f arm_compiler arm_system arm_run
