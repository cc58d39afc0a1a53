# What Rust installs on request only: its standard library for musl, and the sources of it, which are compiled here for
# ThreadSanitizer. Source it after lib.sh.

# rust_with PATH ARGUMENT…: a toolchain of the version in use that has this path in lib/rustlib. Where the active one
# lacks it, rustup installs one with these arguments into the user's cache folder: about 900 MB.
rust_with() {
    local path=$1 version
    shift
    [ ! -e "$(rustc --print sysroot)/lib/rustlib/$path" ] || return 0
    version=$(rustc --version | cut -d' ' -f2)
    export RUSTUP_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/arenite-ci/rustup RUSTUP_TOOLCHAIN=$version
    [ -e "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$path" ] ||
        rustup --quiet toolchain install --profile minimal --no-self-update "$@" "$version"
}

# built_std FOLDER TARGET FLAGS: compiles the standard library with these flags, once per compiler, and sets `sysroot` to
# where it is. Needs `rust_with src/rust`. Not by `cargo -Zbuild-std` for the library itself, which mixes up crates:
# `hashbrown`, for `governor`, brings one that is named `alloc`.
built_std() {
    local target=$2 flags=$3 library original
    sysroot=$(realpath -m "$1")/$(rustc --version | tr -cs 'a-z0-9.\n' '-')
    library=$sysroot/lib/rustlib/$target/lib
    [ ! -e "$sysroot/complete" ] || return 0
    rm -rf "$sysroot"
    mkdir -p "$library" "$sysroot/empty/src"
    : >"$sysroot/empty/src/lib.rs"
    printf '[package]\nname = "empty"\n[workspace]\n' >"$sysroot/empty/Cargo.toml"
    (
        cd "$sysroot/empty"
        RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags CARGO_TARGET_DIR=built \
            cargo build --quiet --release -Zbuild-std=std,panic_unwind,test --target "$target"
    )
    mv "$sysroot/empty/built/$target/release/deps"/*.rlib "$library"
    # The run-time libraries of sanitizers.
    original=$(rustc --print target-libdir --target "$target")
    cp "$original"/librustc-*_rt.*.a "$library"
    rm -rf "$sysroot/empty"
    touch "$sysroot/complete"
}
export -f rust_with built_std
