"""The build backend (PEP 517): maturin, after a check of its requirements.

Without `cargo`, maturin would download a compiler, and end with a traceback where it cannot.
"""

import os
import shutil
import sys

import maturin
from maturin import (  # noqa: F401
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)


def _check():
    """Ends the build with a message for the user, which pip prints."""
    if sys.platform != "linux":
        sys.exit(f"arenite runs on Linux, not on {sys.platform}.")
    if shutil.which("cargo"):
        return
    folder = os.path.join(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"), "bin")
    has_cargo = os.access(os.path.join(folder, "cargo"), os.X_OK)
    sys.exit(
        "arenite is built from source here, which needs Rust 1.91 or newer and a C compiler, and no `cargo` is in PATH. "
        + (f"There is one in {folder}: add it to PATH" if has_cargo else "Install Rust from https://rustup.rs")
        + " and run pip again."
    )


def get_requires_for_build_wheel(config_settings=None):
    _check()
    return maturin.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings=None):
    _check()
    return maturin.get_requires_for_build_editable(config_settings)


def get_requires_for_build_sdist(config_settings=None):
    _check()
    return maturin.get_requires_for_build_sdist(config_settings)
