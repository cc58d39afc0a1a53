# What `.ci/run` and `.ci/nightly` share. Source it in the root of a checkout.
set -euo pipefail
exec </dev/null
# The message and the place of a failed test are enough; the stack of the harness would hide them.
export RUST_BACKTRACE=0
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}" CARGO_TERM_PROGRESS_WHEN=never
# Nothing is compiled twice in a run.
export CARGO_INCREMENTAL=0
# Suites run beside each other and beside release builds, on machines that others share. A hang is one after two minutes, too.
export ARENITE_TEST_PATIENCE="${ARENITE_TEST_PATIENCE:-120}"

# Crates of tables come with a `rust-toolchain.toml`, which the `rustc` of rustup obeys while it compiles them unless
# this is set. rustup sets it when it starts cargo; a cargo that was started otherwise does not.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && command -v rustup >/dev/null; then
    RUSTUP_TOOLCHAIN=$(rustup show active-toolchain | cut -d" " -f1)
    export RUSTUP_TOOLCHAIN
fi

# Release builds have a target folder of their own, so that tests on the debug profile need not wait for its lock.
RELEASED=$PWD/target/released

scratch=$(mktemp -d "${TMPDIR:-/tmp}/arenite-ci.XXXXXX")
# Process groups of commands in the background.
behind=()
cleanup() {
    local group
    for group in "${behind[@]}"; do kill -- "-$group" 2>/dev/null || true; done
    # What they write to the folder ends first.
    wait "${behind[@]}" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT
summary=()
failed() {
    echo "FAILED: $*" >&2
    exit 1
}

# Sets `used` to the seconds of processor time of all commands that have ended. (A subshell would count its own.)
processor_time() {
    times >"$scratch/times"
    used=$(awk -F '[ms ]' 'NR == 2 { printf "%d", $1 * 60 + $2 + $4 * 60 + $5 }' "$scratch/times")
}

# step TITLE SECONDS COMMAND…: prints a heading, runs the command with a time limit, and prints the time it took.
step() {
    local title=$1 limit=$2 begin=$SECONDS code=0 used before
    processor_time
    before=$used
    shift 2
    printf '\n==== %s\n' "$title"
    # A watchdog against hangs, far above the time of the step.
    timeout --kill-after=10 "$limit" "$@" || code=$?
    local took=$((SECONDS - begin))
    processor_time
    used=$((used - before))
    printf -- '---- %s: %d s, %d s of processor time\n' "$title" "$took" "$used"
    [ "$code" -ne 124 ] || failed "$title: not done after $limit s"
    [ "$code" -eq 0 ] || failed "$title (exit code $code)"
    summary+=("$(printf '%5d s  %5d s  %s' "$took" "$used" "$title")")
}

# finish: prints what failed once and how long each step took.
finish() {
    [ ! -e "$scratch/unstable" ] || cat "$scratch/unstable"
    printf '\n==== all passed in %d s\n' "$SECONDS"
    echo "   took  processor"
    printf '%s\n' "${summary[@]}"
}

# Prints the line of README.md that contains this, so that CI runs the commands that users are given.
readme() {
    grep -m1 -F -- "$1" README.md || failed "README.md has no line with: $1"
}

# Runs tests, counts them, and runs each failed one once more. What fails only once is listed at the end, to be looked
# at.
counted() {
    python3 .ci/tests.py "$scratch/unstable" "$@"
}

# Where this user may mount and create control groups, no test may be skipped for want of a right.
may_everything() {
    local folder group=
    for folder in /sys/fs/cgroup/pids /sys/fs/cgroup; do
        [ -n "$group" ] || ! mkdir "$folder/arenite-ci-$$" 2>/dev/null || group=$folder/arenite-ci-$$
    done
    [ -n "$group" ] || return 1
    local may=1
    if [ "$(id -u)" -eq 0 ] && [ -w "$group/pids.max" ] && unshare -r -m mount -t tmpfs none /dev/shm 2>/dev/null &&
        mknod "$scratch/device" c 1 3 2>/dev/null; then
        may=0
    fi
    rmdir "$group"
    return $may
}
if may_everything; then export ARENITE_MUST_TRY=1; fi

# `compile_fail` examples have to fail with the error code that they name, which stable rustdoc checks only with
# RUSTC_BOOTSTRAP. A wrapper sets it for rustdoc alone: crates would be compiled again if it were set for all. It leaves out
# packages of which ARENITE_PROGRAMS has no `doc`, for which Cargo has no flag that would not compile others again.
checking_rustdoc() {
    export RUSTDOC=$scratch/rustdoc
    cat >"$RUSTDOC" <<'EOF'
#!/bin/sh
case "$CARGO_PKG_NAME  $*  ${ARENITE_PROGRAMS:-$CARGO_PKG_NAME/doc} " in
    "  "* | *" $CARGO_PKG_NAME/doc "*) ;;
    *" --test "*) exit 0 ;;
esac
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
EOF
    chmod +x "$RUSTDOC"
    # Self-test: this example fails with another code.
    printf '//! ```compile_fail,E0382\n//! let number: u8 = "none";\n//! ```\n' >"$scratch/wrong.rs"
    local output
    output=$("$RUSTDOC" --test "$scratch/wrong.rs" 2>&1) && failed "rustdoc accepts any error code"
    [[ $output == *'codes were not found: ["E0382"]'* ]] || failed "rustdoc does not check error codes: $output"
}

# HEIC is read through a library of the system. Where it is, no test of it may be skipped.
has_libde265() { python3 -c 'import ctypes; ctypes.CDLL("libde265.so.0")' 2>/dev/null; }
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && ! has_libde265; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends libde265-0; } >/dev/null 2>&1 ||
        echo "libde265-0 cannot be installed: HEIC is not tested"
fi
if has_libde265; then export ARENITE_NEED_LIBDE265=1; fi

# tests COMMAND [ARGUMENT…]: runs the tests of README.md, or others, with rustdoc as above.
tests() {
    checking_rustdoc
    counted "$@"
}

loom() {
    # With a target folder of its own: the flag would rebuild everything else.
    export RUSTFLAGS="--cfg arenite_loom" CARGO_TARGET_DIR=target/loom
    counted cargo test --release -p arenite --lib --no-default-features link::loom
}

# unprivileged [FILTER…]: runs unit tests of the library as a user without privileges: root ignores file modes and
# limits.
unprivileged() {
    local program
    program=$(cargo test --workspace --all-features --lib --no-run 2>&1 |
        sed -nE 's,.*unittests src/lib\.rs \((.*/arenite-[0-9a-f]+)\)$,\1,p')
    [ "$(wc -w <<<"$program")" -eq 1 ] || failed "not the one program with the unit tests of the library: $program"
    chmod 755 "$scratch"
    mkdir -m 777 "$scratch/unprivileged"
    # This user lacks rights. What cases find does not depend on who tries them.
    env -u ARENITE_MUST_TRY ARENITE_CASES=1000 TMPDIR="$scratch/unprivileged" \
        setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --no-new-privs "$program" "$@"
}

# Whether the tests can be run by a user without privileges: by root, in a folder that others may enter.
can_drop_privileges() {
    [ "$(id -u)" -eq 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups test -r Cargo.toml -a -x target 2>/dev/null
}

# Makes a wheel as `pip install ./python` does.
wheel() {
    CARGO_TARGET_DIR=$RELEASED python3 -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$scratch/wheels" ./python
}

# [within=(COMMAND…)] pytest_with PYTHON EXTRAS PACKAGES ARGUMENT…: installs the wheel with these extras, and packages,
# into a fresh environment and runs tests there, by a command that runs others. Files of tests run beside each other,
# since tests wait for processes half of their time.
pytest_with() {
    local interpreter=$1 extras=$2 packages venv
    read -ra packages <<<"$3"
    shift 3
    venv=$(mktemp -d "$scratch/venv.XXXXXX")
    "${within[@]}" "$interpreter" -m venv "$venv"
    "${within[@]}" "$venv/bin/pip" install --quiet --disable-pip-version-check "$(ls "$scratch"/wheels/arenite-*.whl)$extras" "${packages[@]}"
    counted "${within[@]}" "$venv/bin/python" -m pytest -q -n4 --dist=loadfile --durations=5 -o cache_dir="$venv/cache" "$@"
}

CARGO_DENY=0.20.2
cargo_deny=${CARGO_HOME:-$HOME/.cargo}/ci-tools/cargo-deny-$CARGO_DENY
# Builds the tool once and keeps it.
build_deny() {
    [ ! -x "$cargo_deny/bin/cargo-deny" ] || return 0
    # Without optimisation it builds in a fraction of the time, and the check takes a second either way.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_TARGET_DIR=$scratch/deny \
        cargo install --quiet --locked --no-default-features --root "$cargo_deny" "cargo-deny@$CARGO_DENY"
    rm -rf "$scratch/deny"
}
deny() {
    build_deny
    "$cargo_deny/bin/cargo-deny" --workspace --log-level warn check --hide-inclusion-graph bans licenses sources
}

# For the shells that `timeout` starts.
export -f failed readme counted checking_rustdoc tests loom unprivileged wheel pytest_with build_deny deny
export scratch RELEASED CARGO_DENY cargo_deny
run=(bash -euo pipefail -c)
