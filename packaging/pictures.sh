#!/usr/bin/env bash
# Makes the pictures of the documentation, docs/pictures/: `packaging/pictures.sh` makes all, and with names (chart,
# resize, crash, top, page, report) only these. Needs Linux, Rust, Python 3.11 or newer with pip, a C compiler, and
# Chromium. ARENITE_COMMAND may name a command, and ARENITE_WHEEL a wheel of the package, that are built already.
# Recordings show how fast this machine is: let it do nothing else.
#
# The chart is drawn from docs/pictures/bench.json. `packaging/pictures.sh --measure` measures that again, which takes
# some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Its name is seen in the pictures.
folder=${ARENITE_PICTURES:-/tmp/demo}
mkdir "$folder" || { echo "pictures.sh: remove $folder, or set ARENITE_PICTURES to another name" >&2; exit 1; }
trap 'rm -rf "$folder"' EXIT
if [ -z "${ARENITE_COMMAND:-}" ]; then
    cargo build --release -p arenite-cli
    ARENITE_COMMAND=${CARGO_TARGET_DIR:-target}/release/arenite
fi
python3 -m venv "$folder/venv"
python=$folder/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    "${ARENITE_WHEEL:-./python}" numpy pillow pyte opencv-python-headless joblib loky
if [ "${1:-}" = --measure ]; then
    shift
    mkdir -p docs/pictures
    "$python" -m arenite.bench --rows resize-born,resize-copied,crash-results,touch-copied \
        --systems arenite,pool,ppe,loky,threads --json docs/pictures/bench.json
fi
"$python" packaging/pictures/make.py "$ARENITE_COMMAND" "$folder" "$@"
