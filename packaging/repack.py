"""Makes a source archive smaller: `repack.py ARCHIVE`. Needs cargo, and zopfli from PyPI.

The lock file of the workspace is cut down to the packages that the archive needs: with others in it,
`cargo build --locked` refuses it.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from zopfli import gzip


def main(archive):
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
        members = sorted(packed.getmembers(), key=lambda member: member.name)
        (root,) = Path(folder).iterdir()
        cargo = ["cargo", "metadata", "--quiet", "--format-version", "1"]
        subprocess.run(cargo, cwd=root, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*cargo, "--locked"], cwd=root, check=True, stdout=subprocess.DEVNULL)
        lock = (root / "Cargo.lock").read_bytes()
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as repacked:
            for member in members:
                content = packed.extractfile(member)
                if member.name == f"{root.name}/Cargo.lock":
                    content = io.BytesIO(lock)
                    member.size = len(lock)
                repacked.addfile(member, content)
    Path(archive).write_bytes(gzip.compress(output.getvalue()))


if __name__ == "__main__":
    main(sys.argv[1])
