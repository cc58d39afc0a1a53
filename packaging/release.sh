#!/usr/bin/env bash
# Makes what is published: wheels of the package `arenite` and of the command (`arenite-cli`) for x86_64 and aarch64,
# a static command for any Linux on x86_64 (`musl`), the package's source archive, its recipe for conda-forge, and the
# crates. `packaging/release.sh FOLDER [x86_64 | aarch64 | musl | source]…` makes all, or these. Needs Linux, Rust with the
# standard libraries (`rustup target add aarch64-unknown-linux-gnu x86_64-unknown-linux-musl`; RUSTC may name another
# compiler), Python 3.11 or newer with pip, and nasm.
#
# Wheels run with glibc 2.17, which zig links against; `musl` is a wheel too, of the command alone. Their line tables are in
# files beside them, `*.debug`; the names of functions that crash reports show stay inside.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?the folder for what is made}")
shift
mkdir -p "$out"
# Without it, JPEG is decoded and encoded at half the speed.
command -v nasm >/dev/null || { echo "release.sh: no nasm; install it" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'maturin[zig]>=1.16,<2' auditwheel wheel zopfli
export PATH=$work/venv/bin:$PATH CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/released}

# Rust's own objcopy, for files of any processor.
objcopy() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    LD_LIBRARY_PATH=$sysroot/lib "$(find "$sysroot" -name rust-objcopy -print -quit)" "$@"
}

# separate WHEEL: moves the line tables of the programs in a wheel into files beside it.
separate() {
    local wheel=$1 unpacked program
    unpacked=$work/unpacked
    rm -rf "$unpacked"
    python -m wheel unpack --dest "$unpacked" "$wheel"
    while read -r program; do
        case $(head -c 4 "$program") in $'\x7fELF') ;; *) continue ;; esac
        objcopy --only-keep-debug "$program" "${wheel%.whl}.debug"
        objcopy --strip-debug --add-gnu-debuglink="${wheel%.whl}.debug" "$program"
    done < <(find "$unpacked" -type f -size +100k)
    rm "$wheel"
    python -m wheel pack --dest-dir "$out" "$unpacked"/*
}

# wheels TARGET PLATFORM PROJECT…: the wheels of these folders for Rust's target, checked.
wheels() {
    local target=$1 platform=$2 project wheel library
    shift 2
    library=$("${RUSTC:-rustc}" --print target-libdir --target "$target")
    compgen -G "$library/libstd-*.rlib" >/dev/null || {
        echo "release.sh: no standard library in $library: run \`rustup target add $target\`" >&2
        exit 1
    }
    rm -rf "$work/made"
    for project in "$@"; do
        (
            cd "$project"
            maturin build --quiet --release --zig --target "$target" --compatibility "$platform" --out "$work/made"
        )
    done
    for wheel in "$work/made"/*.whl; do
        mv "$wheel" "$out/"
        wheel=$out/$(basename "$wheel")
        separate "$wheel"
        # Fails where a symbol is newer than the wheel's name promises, or comes from a library that is not everywhere.
        auditwheel show "$wheel" | tee "$work/audit"
        grep -q "${platform}_${target%%-*}" "$work/audit" || { echo "release.sh: $wheel needs more than $platform has" >&2; exit 1; }
    done
}

# Source archives and crates. Crates of one workspace depend on each other, so they are packaged together.
sources() {
    (cd python && maturin sdist --out "$out")
    local archive version
    archive=$(ls "$out"/arenite-*.tar.gz)
    python packaging/repack.py "$archive"
    # The recipe for conda-forge, of this archive.
    version=${archive##*/arenite-}
    mkdir -p "$out/conda"
    cp packaging/conda/conda_build_config.yaml "$out/conda/"
    sed -e "s/^  version: \".*/  version: \"${version%.tar.gz}\"/" -e "s/^  sha256: .*/  sha256: $(sha256sum <"$archive" | cut -d' ' -f1)/" \
        packaging/conda/recipe.yaml >"$out/conda/recipe.yaml"
    cargo package --quiet --workspace --exclude arenite-python --exclude arenite-memory --exclude arenite-bench --exclude arenite-tests --exclude arenite-tests-object --no-verify
    cp "$CARGO_TARGET_DIR"/package/*.crate "$out/"
}

[ $# -gt 0 ] || set -- x86_64 aarch64 musl source
export CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")
for what in "$@"; do
    case $what in
        source) sources ;;
        x86_64 | aarch64) wheels "$what-unknown-linux-gnu" manylinux_2_17 python packaging/cli ;;
        musl) wheels x86_64-unknown-linux-musl musllinux_1_2 packaging/cli ;;
        *) echo "release.sh: not known: $what" >&2; exit 2 ;;
    esac
done
(cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS ! -name '*.debug' -exec sha256sum {} + >SHA256SUMS)
ls -l "$out"
