"""Writes files of several pictures of noise, and ends.txt: for each file, the least number of its first bytes in which
another decoder finds all pictures whole. Needs Pillow and tiffcp (libtiff)."""

import io
import random
import subprocess
import warnings
from pathlib import Path

from PIL import Image, ImageFile, ImageSequence

HERE = Path(__file__).parent
random.seed(7)
warnings.simplefilter("error")


def noise(width, height, mode="RGB"):
    count = width * height * len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), random.randbytes(count))


first, *rest = (noise(12, 9) for _ in range(3))
several = dict(save_all=True, append_images=rest)
first.save(HERE / "strips.tif", **several)
first.save(HERE / "lzw.tif", compression="tiff_lzw", **several)
subprocess.run(["tiffcp", "-8", HERE / "strips.tif", HERE / "big.tif"], check=True)
subprocess.run(["tiffcp", "-t", "-w", "16", "-l", "16", HERE / "strips.tif", HERE / "tiles.tif"], check=True)
first.save(HERE / "two.mpo", save_all=True, append_images=rest[:1])
first.save(HERE / "frames.gif", duration=50, **several)
first.save(HERE / "frames.webp", duration=50, lossless=True, **several)
first.save(HERE / "frames.png", duration=50, **several)
noise(32, 32, "RGBA").save(HERE / "sizes.ico", sizes=[(32, 32), (16, 16), (24, 24)])


def pictures(data):
    """All pictures in a file; none if one of them lacks something."""
    try:
        file = Image.open(io.BytesIO(data))
        if file.format == "ICO":
            return [file.ico.getimage(size).tobytes() for size in sorted(file.ico.sizes())]
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(file)]
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, Warning):
        return []


ends = []
for path in sorted(HERE.iterdir()):
    if path.suffix in (".py", ".txt"):
        continue
    data = path.read_bytes()
    whole = pictures(data)
    assert len(whole) > 1, path
    end = len(data)
    while pictures(data[: end - 1]) == whole:
        end -= 1
    ends.append(f"{path.name} {end}\n")
(HERE / "ends.txt").write_text("".join(ends))
