"""Writes what other decoders show of the pictures in this folder. Needs Pillow, tifffile, imagecodecs and numpy."""

import io
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "pictures"))
sys.argv = ["make", "/dev/null/nothing"]
ImageFile.LOAD_TRUNCATED_IMAGES = True


def formulas():
    source = (HERE.parent / "pictures/make.py").read_text()
    names = {}
    exec(source[: source.rindex("\n\ntiffs()")].replace("__file__", repr(str(HERE))), names)
    return names


make = formulas()
opened = lambda data: Image.open(io.BytesIO(data))


def shown(name, data):
    if name == "jpeg_arithmetic.jpg":
        # Pillow cannot.
        return imagecodecs.jpeg8_decode(data)
    if name == "jpeg_cmyk_without_adobe_marker.jpg":
        return make["from_inks"](np.asarray(opened(data)))
    if name == "jpeg_dri_without_rst.jpg":
        at = data.index(b"\xff\xdd\x00\x04") + 4
        return np.asarray(opened(data[:at] + b"\0\0" + data[at + 2 :]))
    if name == "jpeg_zero_after_soi.jpg":
        return np.asarray(opened(data[:2] + data[3:]))
    if name == "jpeg_exif_orientation_LONG.jpg":
        at = data.index(b"Exif\0\0")
        number = data[at + 6 + 8 + 2 + 8] or data[at + 6 + 8 + 2 + 11]
        return make["turned"](np.asarray(opened(data)), number)
    if name == "png_gama_1.0.png":
        return make["srgb"](np.asarray(opened(data)) / 255.0)
    if name == "png_cicp_display_p3.png":
        light = make["linear"](np.asarray(opened(data)))
        light = light @ make["matrix"](make["P3"]).T @ np.linalg.inv(make["matrix"](make["SRGB"])).T
        return make["srgb"](light)
    if name == "png_gray1_trns_highbits.png":
        grey = np.asarray(opened(data).convert("L"))
        return np.dstack([grey, grey, grey, np.where(grey == 255, 0, 255)])
    if name == "tiff_cielab8.tif":
        lab = tifffile.imread(io.BytesIO(data))
        level = lab[..., 0].astype(float) * 100 / 255
        a, b = (lab[..., index].view(np.int8).astype(float) for index in (1, 2))
        y = (level + 16) / 116
        xyz = np.stack([y + a / 500, y, y - b / 200], axis=2)
        xyz = np.where(xyz > 6 / 29, xyz**3, (xyz - 4 / 29) * 108 / 841) * [0.95047, 1, 1.08883]
        return make["srgb"](xyz @ np.linalg.inv(make["matrix"](make["SRGB"])).T)
    if name == "tiff_cmyk_planar.tif":
        return make["from_inks"](np.moveaxis(tifffile.imread(io.BytesIO(data)), 0, -1))
    if name == "tiff_gray12.tif":
        return np.round(tifffile.imread(io.BytesIO(data)).astype(float) * 255 / 4095)
    if name == "tiff_gray_alpha8.tif":
        grey, alpha = np.moveaxis(tifffile.imread(io.BytesIO(data)), -1, 0)
        return np.dstack([grey, grey, grey, alpha])
    if name == "tiff_zstd.tif":
        return tifffile.imread(io.BytesIO(data))
    if name == "tiff_jpeg_ycbcr_strips.tif":
        return tifffile.imread(io.BytesIO(data))
    image = opened(data)
    return np.asarray(image.convert("RGBA" if image.mode in ("P", "RGBA") else "RGB"))


for path in sorted(HERE.glob("*.*")):
    if (
        path.suffix in (".py", ".md")
        or path.name.count(".") > 1
        and path.suffix == ".png"
        and path.with_suffix("").exists()
    ):
        continue
    if path.name == "jpeg_truncated_by_50_bytes.jpg":
        continue
    array = shown(path.name, path.read_bytes()).astype(float)
    by = max(
        factor
        for factor in (1, 2, 4, 10)
        if array.shape[0] % factor == 0 and array.shape[0] // factor >= 60 or factor == 1
    )
    array = array.reshape(array.shape[0] // by, by, array.shape[1] // by, by, -1).mean(axis=(1, 3))
    Image.fromarray(np.round(array).astype(np.uint8).squeeze()).save(f"{path}.png", optimize=True)
