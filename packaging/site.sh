#!/usr/bin/env bash
# Builds the documentation as a site: `packaging/site.sh FOLDER`. Needs Python 3.11 or newer with pip, and Rust for the
# pages of the crates, which `ARENITE_SITE_RUST=0` leaves out. Follows every link of the site, and fails at a dead one.
set -euo pipefail
out=$(realpath -m "${1:?the folder for the site}")
cd "$(dirname "$0")/.."
site=packaging/site
if [ -n "$(ls -A "$out" 2>/dev/null)" ] && [ ! -e "$out/sitemap.xml" ]; then
    echo "site.sh: $out has other files" >&2
    exit 2
fi
# The tools, and what cargo builds, stay for the next time.
kept=${CARGO_TARGET_DIR:-target}/site
venv=$kept/venv
if [ ! "$venv/complete" -nt "$site/requirements.txt" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$site/requirements.txt"
    touch "$venv/complete"
fi
export PYTHONDONTWRITEBYTECODE=1 NO_MKDOCS_2_WARNING=1  # The latter hides an advertisement.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$venv/bin/mkdocs" build --strict --config-file "$site/mkdocs.yml" --site-dir "$work/site"
"$venv/bin/python" "$site/api.py" "$work/site/python-api"
without=()
if [ "${ARENITE_SITE_RUST:-1}" = 0 ]; then
    without=(rust/)
else
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --target-dir "$kept" --no-deps --lib -p arenite -p arenite-image -p arenite-store \
        -p arenite-tables --features arenite/sandbox,arenite/tracing
    cp -r "$kept/doc" "$work/site/rust"
    echo '<meta http-equiv="refresh" content="0; url=arenite/index.html">' >"$work/site/rust/index.html"
fi
"$venv/bin/python" "$site/check.py" "$work/site" "${without[@]}"
rm -rf "$out"
mkdir -p "$(dirname "$out")"
mv "$work/site" "$out"
