"""Writes the pictures of this folder, and what an independent decoder shows of them.

Needs Pillow, pillow-heif, tifffile, imagecodecs, numpy, avifenc of libavif, heif-enc of libheif and cjxl of libjxl. Each NAME.EXT has a NAME.EXT.png beside it: 8 bits of grey, RGB or RGBA,
from the array that was written, or from Pillow where a format loses something.
"""

import io
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
W, H = 29, 21
Y, X = np.mgrid[0:H, 0:W]
RGB = np.stack([X * 255 // (W - 1), Y * 255 // (H - 1), (X * 7 + Y * 11) % 256], axis=2).astype(np.uint8)
GREY = ((X * 5 + Y * 6) % 256).astype(np.uint8)
ALPHA = np.clip(255 - X * 6, 0, 255).astype(np.uint8)
BITS = ((X // 3 + Y // 2) % 3 == 0).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])


def keep(name, data, shown):
    (OUT / name).write_bytes(data)
    Image.fromarray(np.ascontiguousarray(shown.astype(np.uint8))).save(OUT / f"{name}.png", optimize=True)


def deep(array):
    return array.astype(np.uint16) * 257


def from_inks(inks):
    inks = 255.0 - inks.astype(float)
    return np.round(inks[..., :3] * inks[..., 3:] / 255)


# TIFF


def tiff(name, array, shown, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, software=False, **options)
    keep(f"{name}.tif", file.getvalue(), shown)


def entry(data, tag):
    """Place, type and values of a tag in a little-endian TIFF."""
    start = struct.unpack_from("<I", data, 4)[0]
    for index in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * index
        number, kind, count = struct.unpack_from("<HHI", data, at)
        if number == tag:
            letter = {1: "B", 3: "H", 4: "I"}[kind]
            size = struct.calcsize(f"<{count}{letter}")
            place = at + 8 if size <= 4 else struct.unpack_from("<I", data, at + 8)[0]
            return at, struct.unpack_from(f"<{count}{letter}", data, place)
    raise KeyError(tag)


def with_tag(data, tag, value):
    """The file with one more tag of type SHORT, in a directory at its end."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    entries = [data[start + 2 + 12 * index :][:12] for index in range(count)]
    entries = [one for one in entries if struct.unpack_from("<H", one)[0] != tag]
    entries.append(struct.pack("<HHIHH", tag, 3, 1, value, 0))
    entries.sort(key=lambda one: struct.unpack_from("<H", one)[0])
    data += b"\0" * (len(data) % 2)
    table = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + table


def reversed_bits(data):
    """The file with FillOrder 2."""
    table = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    places = list(zip(entry(data, 273)[1], entry(data, 279)[1]))
    data = bytearray(with_tag(data, 266, 2))
    for place, length in places:
        data[place : place + length] = data[place : place + length].translate(table)
    return bytes(data)


def tiffs():
    planes = lambda array: np.moveaxis(array, -1, 0)
    for packing in (None, "lzw", "zlib", "packbits", "zstd", "lzma"):
        word = packing or "plain"
        for predictor in (False, True) if packing in ("lzw", "zlib", "zstd", "lzma") else (False,):
            mark = "_predicted" if predictor else ""
            common = dict(compression=packing, predictor=predictor)
            tiff(f"tiff_rgb8_{word}{mark}", RGB, RGB, rowsperstrip=5, **common)
            tiff(f"tiff_rgb16_{word}{mark}", deep(RGB), RGB, byteorder=">", **common)
            tiff(f"tiff_rgbx8_{word}{mark}", RGBA, RGB, photometric="rgb", extrasamples=[0], **common)
            tiff(f"tiff_rgb8_tiles_{word}{mark}", RGB, RGB, tile=(16, 16), **common)
            inks = np.dstack([RGB, GREY // 2, ALPHA])
            tiff(
                f"tiff_cmykx8_{word}{mark}",
                inks,
                from_inks(inks[..., :4]),
                photometric="separated",
                extrasamples=[0],
                **common,
            )
            tiff(
                f"tiff_rgbx8_tiles_{word}{mark}",
                RGBA,
                RGB,
                photometric="rgb",
                extrasamples=[0],
                tile=(16, 32),
                **common,
            )
    for packing in ("lzw", "zlib", None):
        word = packing or "plain"
        tiff(
            f"tiff_rgba8_planar_{word}",
            planes(RGBA),
            RGBA,
            photometric="rgb",
            planarconfig="separate",
            extrasamples=[2],
            compression=packing,
        )
        tiff(
            f"tiff_rgb8_planar_tiles_{word}",
            planes(RGB),
            RGB,
            photometric="rgb",
            planarconfig="separate",
            tile=(16, 16),
            compression=packing,
        )
    inks = np.dstack([RGB, GREY // 2])
    tiff("tiff_cmyk8", inks, from_inks(inks), photometric="separated")
    tiff("tiff_cmyk16_planar", planes(deep(inks)), from_inks(inks), photometric="separated", planarconfig="separate")
    for kind in ("minisblack", "miniswhite"):
        shown = GREY if kind == "minisblack" else 255 - GREY
        tiff(f"tiff_{kind}8", GREY, shown, photometric=kind)
        tiff(f"tiff_{kind}16", deep(GREY), shown, photometric=kind, compression="zlib", predictor=True)
        tiff(f"tiff_{kind}32", GREY.astype(np.uint32) * 0x01010101, shown, photometric=kind, byteorder=">")
        bits = BITS if kind == "minisblack" else 1 - BITS
        tiff(f"tiff_{kind}1", BITS.astype(bool), bits * 255, photometric=kind)
    for depth in (2, 3, 4, 5, 6, 10, 12, 14):
        most = (1 << depth) - 1
        kind = np.uint8 if depth < 8 else np.uint16
        levels = np.round(GREY.astype(float) * most / 255).astype(kind)
        shown = np.round(levels.astype(float) * 255 / most)
        tiff(f"tiff_grey{depth}", levels, shown, bitspersample=depth, photometric="minisblack")
    for depth in (5, 12):
        most = (1 << depth) - 1
        levels = np.round(RGB.astype(float) * most / 255).astype(np.uint16 if depth > 8 else np.uint8)
        shown = np.round(levels.astype(float) * 255 / most)
        tiff(f"tiff_rgb{depth}", levels, shown, bitspersample=depth, photometric="rgb")
    for dtype in (np.float16, np.float32, np.float64):
        name = np.dtype(dtype).name
        tiff(f"tiff_grey_{name}", (GREY / 255).astype(dtype), GREY, photometric="minisblack")
        # Light: scRGB of libvips.
        tiff(
            f"tiff_rgb_{name}_predicted",
            (RGB / 255).astype(dtype),
            srgb(RGB / 255),
            photometric="rgb",
            compression="zlib",
            predictor=True,
        )
    signed = (GREY.astype(np.int16) - 100) * 128
    tiff("tiff_grey_int16", signed, np.round(np.clip(signed, 0, None) * 255.0 / 32767), photometric="minisblack")
    tiff(
        "tiff_grey_alpha8",
        np.dstack([GREY, ALPHA]),
        np.dstack([GREY, GREY, GREY, ALPHA]),
        photometric="minisblack",
        extrasamples=[2],
    )
    tiff(
        "tiff_grey_alpha16_planar",
        deep(np.stack([GREY, ALPHA])),
        np.dstack([GREY, GREY, GREY, ALPHA]),
        photometric="minisblack",
        planarconfig="separate",
        extrasamples=[2],
    )
    times = np.round(RGB.astype(float) * ALPHA[..., None] / 255).astype(np.uint8)
    back = np.round(np.minimum(times.astype(float) * 255 / np.maximum(ALPHA, 1)[..., None], 255))
    tiff(
        "tiff_rgba8_associated",
        np.dstack([times, ALPHA]),
        np.dstack([back, ALPHA]),
        photometric="rgb",
        extrasamples=[1],
    )
    palette = np.random.default_rng(7).integers(0, 256, (3, 256), dtype=np.uint16)
    for depth in (1, 2, 4, 8):
        indices = GREY >> (8 - depth)
        table = palette[:, : 1 << depth] * 257
        if depth == 8:
            tiff("tiff_palette8", indices, palette.T[indices], photometric="palette", colormap=table)
        pixels = np.packbits(np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(H, -1), axis=1)
        keep(f"tiff_palette{depth}_by_hand.tif", by_hand(pixels.tobytes(), depth, 3, table), palette.T[indices])
    for packing, name in ((None, "plain"), ("lzw", "lzw"), ("zlib", "zlib"), ("packbits", "packbits")):
        for what, array, shown in (
            ("rgb8", RGB, RGB),
            ("rgb16", deep(RGB), RGB),
            ("grey1", BITS.astype(bool), BITS * 255),
        ):
            file = io.BytesIO()
            photometric = "rgb" if what.startswith("rgb") else "minisblack"
            tifffile.imwrite(file, array, metadata=None, software=False, compression=packing, photometric=photometric)
            keep(f"tiff_{what}_{name}_reversed.tif", reversed_bits(file.getvalue()), shown)
    tile = dict(tile=(16, 16))
    tiff("tiff_big_bigtiff", RGB, RGB, bigtiff=True, byteorder=">", **tile)
    # The data of the short ones end with a code that is shorter than what tables of codes look at.
    for kind, bits in (("", BITS), ("_short", BITS[:2, :12])):
        bits = bits * 255
        for name in ("group3", "group4", "tiff_ccitt"):
            file = io.BytesIO()
            Image.fromarray(bits).convert("1").save(file, "TIFF", compression=name)
            keep(f"tiff_{name}{kind}.tif", file.getvalue(), bits)
        file = io.BytesIO()
        Image.fromarray(bits).convert("1").save(file, "TIFF", compression="group3", tiffinfo={292: 1})
        keep(f"tiff_group3_2d{kind}.tif", file.getvalue(), bits)
    smooth = np.dstack([X * 8, Y * 12, (X + Y) * 5]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "TIFF", compression="jpeg", quality=95)
    keep("tiff_jpeg.tif", file.getvalue(), np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB")))
    for name, options in (("strips", {"rowsperstrip": 8}), ("tiles", {"tile": (16, 16)})):
        file = io.BytesIO()
        tifffile.imwrite(
            file, smooth, metadata=None, software=False, compression="jpeg", compressionargs={"level": 95}, **options
        )
        keep(f"tiff_jpeg_{name}.tif", file.getvalue(), tifffile.imread(io.BytesIO(file.getvalue())))
    file = io.BytesIO()
    tifffile.imwrite(file, smooth, metadata=None, software=False, compression="webp", compressionargs={"level": 101})
    keep("tiff_webp.tif", file.getvalue(), tifffile.imread(io.BytesIO(file.getvalue())))
    for number in range(1, 9):
        file = io.BytesIO()
        tifffile.imwrite(file, RGB, metadata=None, software=False)
        keep(f"tiff_orientation{number}.tif", with_tag(file.getvalue(), 274, number), turned(RGB, number))
    for across, down in ((1, 1), (2, 1), (2, 2), (4, 2)):
        ycbcr(across, down)


def by_hand(pixels, depth, photometric, table=None, extra=(), samples=1):
    tags = [
        (256, 3, [W]),
        (257, 3, [H]),
        (258, 3, [depth] * samples),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8]),
        (277, 3, [samples]),
        (278, 3, [H]),
        (279, 4, [len(pixels)]),
        *extra,
    ]
    if table is not None:
        tags.append((320, 3, [int(part) for part in table.ravel()]))
    start = 8 + len(pixels) + len(pixels) % 2
    after = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, kind, numbers in sorted(tags):
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            value = struct.pack("<I", after + len(values))
            values += packed
        else:
            value = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + value
    body = pixels + b"\0" * (len(pixels) % 2)
    return b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + values


def ycbcr(across, down):
    """Differences that pixels share, stored after their lumas."""
    smooth = np.dstack([X * 8, Y * 12, (X + Y) * 5]).astype(float)
    r, g, b = smooth[..., 0], smooth[..., 1], smooth[..., 2]
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    parts = [luma, 128 + (b - luma) * 127 / 255 / 0.886 * 255 / 255, 128 + (r - luma) * 127 / 255 / 0.701]
    wide, high = -(-W // across) * across, -(-H // down) * down
    parts = [np.pad(part, ((0, high - H), (0, wide - W)), mode="edge") for part in parts]
    parts = [np.clip(np.round(part), 0, 255).astype(np.uint8) for part in parts]
    data, used = bytearray(), [np.zeros((high, wide)) for _ in range(2)]
    for y in range(0, high, down):
        for x in range(0, wide, across):
            data += parts[0][y : y + down, x : x + across].tobytes()
            for index in (1, 2):
                mean = int(round(float(parts[index][y : y + down, x : x + across].mean())))
                data.append(mean)
                used[index - 1][y : y + down, x : x + across] = mean
    luma = parts[0].astype(float)
    blue, red = ((part - 128) * 255 / 127 for part in used)
    r = luma + red * 0.701
    b = luma + blue * 0.886
    g = (luma - 0.299 * r - 0.114 * b) / 0.587
    shown = np.clip(np.round(np.dstack([r, g, b])), 0, 255)[:H, :W]
    file = by_hand(bytes(data), 8, 6, extra=[(530, 3, [across, down])], samples=3)
    keep(f"tiff_ycbcr_{across}x{down}.tif", file, shown)


def turned(array, number):
    how = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: np.rot90(a),
    }
    return how.get(number, lambda a: a)(array)


# PNG

PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, array, kind, depth, shown, chunks=(), interlaced=False):
    """Filter 0 everywhere; the array has one sample per number."""
    array = array.reshape(array.shape[0], array.shape[1], -1)

    def rows(part):
        out = b""
        for row in part.reshape(part.shape[0], -1):
            if depth == 16:
                out += b"\0" + row.astype(">u2").tobytes()
            else:
                bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
                out += b"\0" + np.packbits(bits.ravel()).tobytes()
        return out

    data = b""
    for x, y, across, down in PASSES if interlaced else [(0, 0, 1, 1)]:
        part = array[y::down, x::across]
        data += rows(part) if part.size else b""
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, kind, 0, 0, interlaced)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    file += b"".join(chunk(*one) for one in chunks) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    keep(f"{name}.png", file, shown)


def srgb(linear):
    linear = np.clip(linear, 0, 1)
    return np.round(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255)


def linear(code):
    part = code / 255.0
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def matrix(points):
    """From linear RGB with these primaries and D65 to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points[:3]]).T
    x, y = points[3]
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


SRGB = [(0.64, 0.33), (0.3, 0.6), (0.15, 0.06), (0.3127, 0.329)]
P3 = [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329)]


def pngs():
    for interlaced in (False, True):
        end = "_interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            levels = GREY >> (8 - depth) if depth <= 8 else deep(GREY)
            most = (1 << depth) - 1
            shown = np.round(levels.astype(float) * 255 / most)
            png(f"png_grey{depth}{end}", levels, 0, depth, shown, interlaced=interlaced)
            clear = int(levels[3, 3])
            alpha = np.where(levels == clear, 0, 255)
            noise = 0xFFFF << depth & 0xFFFF
            key = [(b"tRNS", struct.pack(">H", clear | noise))]
            png(f"png_grey{depth}_trns{end}", levels, 0, depth, np.dstack([shown] * 3 + [alpha]), key, interlaced)
            if depth <= 8:
                colors = np.random.default_rng(3).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
                table = [(b"PLTE", colors.tobytes())]
                png(f"png_palette{depth}{end}", levels, 3, depth, colors[levels], table, interlaced)
                part = np.concatenate([np.arange(1 << depth) * 255 // most]).astype(np.uint8)
                table.append((b"tRNS", part.tobytes()))
                shown = np.dstack([colors[levels], part[levels]])
                png(f"png_palette{depth}_trns{end}", levels, 3, depth, shown, table, interlaced)
        for depth in (8, 16):
            wide = deep if depth == 16 else lambda a: a
            png(f"png_rgb{depth}{end}", wide(RGB), 2, depth, RGB, interlaced=interlaced)
            png(f"png_rgba{depth}{end}", wide(RGBA), 6, depth, RGBA, interlaced=interlaced)
            both = np.dstack([GREY, ALPHA])
            png(
                f"png_grey_alpha{depth}{end}",
                wide(both),
                4,
                depth,
                np.dstack([GREY] * 3 + [ALPHA]),
                interlaced=interlaced,
            )
    gamma = lambda value: (b"gAMA", struct.pack(">I", value))
    places = lambda points: (
        b"cHRM",
        struct.pack(">8I", *(round(part * 100000) for point in [points[3], *points[:3]] for part in point)),
    )
    to_srgb = np.linalg.inv(matrix(SRGB))
    from_p3 = lambda light: light @ matrix(P3).T @ to_srgb.T
    png("png_gama_linear", RGB, 2, 8, srgb(RGB / 255.0), [gamma(100000)])
    png("png_gama_1.8_grey", GREY, 0, 8, srgb((GREY / 255.0) ** 1.8), [gamma(55556)])
    png("png_gama_of_srgb", RGB, 2, 8, RGB, [gamma(45455)])
    png("png_gama_and_srgb", RGB, 2, 8, RGB, [gamma(100000), (b"sRGB", b"\0")])
    png("png_chrm_p3", RGB, 2, 8, srgb(from_p3(linear(RGB))), [places(P3)])
    png("png_chrm_p3_gama", RGB, 2, 8, srgb(from_p3((RGB / 255.0) ** 1.8)), [gamma(55556), places(P3)])
    png("png_cicp_p3", RGB, 2, 8, srgb(from_p3(linear(RGB))), [(b"cICP", bytes([12, 13, 0, 1]))])
    png(
        "png_cicp_over_srgb",
        RGBA,
        6,
        8,
        np.dstack([srgb(from_p3(linear(RGB))), ALPHA]),
        [(b"cICP", bytes([12, 13, 0, 1])), (b"sRGB", b"\0")],
    )
    # What libpng ignores: a background of indices before their colours, code points of YCbCr or of an unknown range,
    # and suggested colours in a wrong number of bytes.
    colors = np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)
    table = [(b"bKGD", b"\x07"), (b"PLTE", colors.tobytes())]
    png("png_ignored_bkgd", GREY, 3, 8, colors[GREY], table)
    png("png_ignored_cicp_matrix", RGB, 2, 8, RGB, [(b"cICP", bytes([9, 16, 9, 0]))])
    png("png_ignored_cicp_range", RGB, 2, 8, RGB, [(b"cICP", bytes([9, 16, 0, 2]))])
    for length in (5, 771):
        png(f"png_ignored_plte_{length}", RGBA, 6, 8, RGBA, [(b"PLTE", bytes(length))])
    png("png_ignored_plte_grey", GREY, 0, 8, GREY, [(b"PLTE", bytes(4))])
    # EXIF as text: of ImageMagick with lines of 36 bytes, and of exiftool in one line.
    for name, number, kind, across in (("exif", 6, b"zTXt", 36), ("exif", 5, b"tEXt", 36), ("APP1", 8, b"zTXt", 999)):
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + bytes([0, number]) + bytes(6)
        lines = [exif[at : at + across].hex() for at in range(0, len(exif), across)]
        text = f"\n{name}\n{len(exif):8}\n".encode() + "\n".join(lines).encode() + b"\n"
        data = zlib.compress(text) if kind == b"zTXt" else text
        keyword = f"Raw profile type {name}".encode() + bytes(1 + (kind == b"zTXt"))
        case = f"png_text_{name.lower()}_{number}"
        png(case, RGB, 2, 8, turned(RGB, number), [(kind, keyword + data)])
        # Pillow knows only one of the keywords.
        if name == "exif":
            with Image.open(OUT / f"{case}.png") as opened:
                assert (np.asarray(ImageOps.exif_transpose(opened)) == turned(RGB, number)).all()


# GIF


def gifs():
    image = Image.fromarray(GREY).quantize(16)
    file = io.BytesIO()
    image.save(file, "GIF")
    whole = bytearray(file.getvalue())
    frame = whole.index(b"\x2c", 13 + 3 * (2 << (whole[10] & 7)))
    colors = np.asarray(image.convert("RGB"))
    clear = np.zeros((H, W, 1), np.uint8)

    def case(name, screen, offset, shown):
        data = bytearray(whole)
        struct.pack_into("<HH", data, 6, *screen)
        struct.pack_into("<HH", data, frame + 1, *offset)
        keep(f"{name}.gif", bytes(data), shown)

    case("gif_plain", (W, H), (0, 0), colors)
    case("gif_no_screen", (0, 0), (0, 0), colors)
    case("gif_small_screen", (10, 10), (0, 0), colors)
    opaque = np.dstack([colors, 255 - clear])
    larger = np.zeros((H + 9, W + 6, 4), np.uint8)
    larger[4 : 4 + H, 5 : 5 + W] = opaque
    case("gif_larger_screen", (W + 6, H + 9), (5, 4), larger)
    beyond = np.zeros((H + 4, W + 5, 4), np.uint8)
    beyond[4:, 5:] = opaque
    case("gif_beyond_screen", (W, H), (5, 4), beyond)


# BMP


def bmp(name, pixels, bits, shown, *, size=40, compression=0, palette=b"", masks=b"", height=H, offset=0, used=0):
    if size == 12:
        second = struct.pack("<IHHHH", 12, W, abs(height), 1, bits)
    else:
        second = struct.pack("<IiiHHIIiiII", size, W, height, 1, bits, compression, len(pixels), 0, 0, used, 0)
        if size > 40:
            second = (second + masks).ljust(size, b"\0")
            masks = b""
    start = 14 + len(second) + len(masks) + len(palette) + offset
    file = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + second + masks + palette + pixels
    keep(f"{name}.bmp", file, shown)


def packed(levels, bits):
    parts = np.unpackbits(levels.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :].reshape(levels.shape[0], -1)
    parts = np.packbits(parts, axis=1)
    return np.pad(parts, ((0, 0), (0, -parts.shape[1] % 4)))[::-1].tobytes()


def dibs():
    """Without the first header; Pillow reads them by the second."""
    names = ("palette1_header12", "palette4_header40", "palette8_header124", "rgb24_os2", "rgb24_top_down", "rgba32_v5")
    for name in (*names, "rgb16_565", "runs8"):
        data = (OUT / f"bmp_{name}.bmp").read_bytes()[14:]
        (OUT / f"dib_{name}.dib").write_bytes(data)
        (OUT / f"dib_{name}.dib.png").write_bytes((OUT / f"bmp_{name}.bmp.png").read_bytes())


def tgas():
    for turned in (1, -1):
        file = io.BytesIO()
        Image.fromarray(BITS * 255).convert("1").save(file, "TGA", orientation=turned)
        shown = np.asarray(Image.open(file).convert("L"))
        keep(f"tga_one_bit{turned}.tga", file.getvalue(), shown)


def bmps():
    colors = np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)
    four = lambda count: b"".join(bytes([*reversed(color.tolist()), 0]) for color in colors[:count])
    three = lambda count: b"".join(bytes(reversed(color.tolist())) for color in colors[:count])
    for bits in (1, 2, 4, 8):
        levels = GREY >> (8 - bits)
        shown = colors[levels]
        for size in (12, 40, 52, 56, 64, 108, 124):
            palette = three(1 << bits) if size == 12 else four(1 << bits)
            if size in (12, 40, 64) or bits == 8:
                bmp(f"bmp_palette{bits}_header{size}", packed(levels, bits), bits, shown, size=size, palette=palette)
    few = GREY >> 4
    bmp("bmp_palette8_of_16", packed(few, 8), 8, colors[few], palette=four(16), used=16)
    bmp("bmp_palette8_gap", packed(few, 8), 8, colors[few], palette=four(16) + b"gap.", used=16)
    # The header announces 256 colours, and the pixels begin after 16 of them.
    bmp("bmp_offset_in_palette", packed(few, 8), 8, colors[few], palette=four(16), used=256)
    rows = np.pad(RGB[::-1, :, ::-1].reshape(H, -1), ((0, 0), (0, -3 * W % 4)))
    bmp("bmp_rgb24", rows.tobytes(), 24, RGB)
    bmp("bmp_rgb24_top_down", rows[::-1].tobytes(), 24, RGB, height=-H)
    bmp("bmp_rgb24_os2", rows.tobytes(), 24, RGB, size=12)
    bgra = RGBA[::-1][..., [2, 1, 0, 3]].tobytes()
    bmp("bmp_rgb32", bgra, 32, RGB)
    fields = lambda *masks: struct.pack(f"<{len(masks)}I", *masks)
    bmp("bmp_rgba32_fields", bgra, 32, RGBA, size=56, compression=3, masks=fields(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    bmp("bmp_rgba32_v5", bgra, 32, RGBA, size=124, compression=3, masks=fields(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    bmp("bmp_rgb32_fields", RGBA[::-1].tobytes(), 32, RGB, compression=3, masks=fields(0xFF, 0xFF00, 0xFF0000))
    for name, masks in (("555", (0x7C00, 0x3E0, 0x1F)), ("565", (0xF800, 0x7E0, 0x1F)), ("444", (0xF00, 0xF0, 0xF))):
        number, shown = np.zeros((H, W), np.uint16), []
        for channel, mask in enumerate(masks):
            shift = (mask & -mask).bit_length() - 1
            most = mask >> shift
            part = np.round(RGB[..., channel] * most / 255.0).astype(np.uint16)
            number |= part << shift
            shown.append(np.round(part * 255.0 / most))
        data = np.pad(number[::-1], ((0, 0), (0, W % 2))).astype("<u2").tobytes()
        if name == "555":
            bmp("bmp_rgb16_default", data, 16, np.dstack(shown))
        bmp(f"bmp_rgb16_{name}", data, 16, np.dstack(shown), compression=3, masks=fields(*masks))
    runs(colors, four)


def runs(colors, four):
    """Runs, copied pixels, steps, rows and pictures that end early."""
    levels = (X // 4 + Y) % 8
    shown = colors[levels]
    for bits, compression in ((8, 1), (4, 2)):
        data = b""
        for row in levels[::-1]:
            data += (
                b"\0"
                + bytes([5])
                + (
                    bytes(row[:5].tolist()) + b"\0"
                    if bits == 8
                    else bytes([row[0] << 4 | row[1], row[2] << 4 | row[3], row[4] << 4, 0])
                )
            )
            for level in row[5:]:
                data += bytes([1, level if bits == 8 else level << 4])
            data += b"\0\0"
        bmp(f"bmp_runs{bits}", data + b"\0\1", bits, shown, compression=compression, palette=four(1 << bits))
        bmp(f"bmp_runs{bits}_no_end", data, bits, shown, compression=compression, palette=four(1 << bits))
        pair = 0x33 if bits == 4 else 3
        step = bytes([4, pair, 0, 2, 6, 3, 7, pair, 0, 0, 2, pair, 0, 1])
        clear = np.zeros((H, W, 4), np.uint8)
        clear[..., :3] = colors[0]
        for x, y, count in ((0, 0, 4), (10, 3, 7), (0, 4, 2)):
            clear[H - 1 - y, x : x + count] = [*colors[3], 255]
        bmp(f"bmp_runs{bits}_steps", step, bits, clear, compression=compression, palette=four(1 << bits))


# JPEG


def jpegs():
    smooth = Image.fromarray(np.dstack([X * 8, Y * 12, (X + Y) * 5]).astype(np.uint8)).resize((120, 90))

    def case(name, image, mode="RGB", **options):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=92, **options)
        keep(f"{name}.jpg", file.getvalue(), np.asarray(Image.open(io.BytesIO(file.getvalue())).convert(mode)))

    for progressive in (False, True):
        end = "_progressive" if progressive else ""
        for number, name in enumerate(("444", "422", "420")):
            case(f"jpeg_{name}{end}", smooth, subsampling=number, progressive=progressive)
        case(f"jpeg_grey{end}", smooth.convert("L"), mode="L", progressive=progressive)
    file = io.BytesIO()
    inks = Image.fromarray(255 - np.dstack([np.asarray(smooth), np.asarray(smooth.convert("L")) // 2 + 128]), "CMYK")
    inks.save(file, "JPEG", quality=92)
    data = file.getvalue()
    back = np.asarray(Image.open(io.BytesIO(data)))
    keep("jpeg_cmyk.jpg", data, from_inks(back))
    marker = data.index(b"\xff\xee")
    length = struct.unpack_from(">H", data, marker + 2)[0]
    keep("jpeg_cmyk_no_adobe.jpg", data[:marker] + data[marker + 2 + length :], from_inks(back))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=92)
    shown = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    for kind, letter in ((1, "B"), (3, "H"), (4, "I")):
        for order in "<>":
            value = struct.pack(order + letter, 6).ljust(4, b"\0")
            head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
            exif = head + struct.pack(order + "HHHI", 1, 0x112, kind, 1) + value + b"\0\0\0\0"
            segment = b"Exif\0\0" + exif
            data = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + file.getvalue()[2:]
            name = f"jpeg_orientation_{letter}_{'little' if order == '<' else 'big'}.jpg"
            keep(name, data, turned(shown, 6))


# JPEG XL


def jxls():
    kinds = {"grey": (GREY, 1), "grey_alpha": (np.dstack([GREY, ALPHA]), 1), "rgb": (RGB, 3), "rgba": (RGBA, 3)}

    def shown(array, colors):
        """This writer declares 16 bits to be linear."""
        if array.dtype == np.uint8:
            return array
        array = array.reshape(H, W, -1) / 65535
        return np.squeeze(np.dstack([srgb(array[..., :colors]), array[..., colors:] * 255]))

    for name, (array, colors) in kinds.items():
        for bits, samples in ((8, array), (16, deep(array))):
            for container in (False, True):
                end = "_container" if container else ""
                data = imagecodecs.jpegxl_encode(samples, lossless=True, usecontainer=container)
                keep(f"jxl_{name}{bits}{end}.jxl", data, shown(samples, colors))
            data = imagecodecs.jpegxl_encode(samples, distance=0.5, effort=3)
            keep(f"jxl_{name}{bits}_lossy.jxl", data, shown(imagecodecs.jpegxl_decode(data), colors))

    def case(name, options, *frames):
        with tempfile.TemporaryDirectory() as folder:
            first, *rest = [Image.fromarray(frame) for frame in frames]
            first.save(f"{folder}/in.png", save_all=bool(rest), append_images=rest, duration=80)
            command = ["cjxl", f"{folder}/in.png", f"{folder}/out.jxl", "-d", "0", *options.split()]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            keep(f"jxl_{name}.jxl", (Path(folder) / "out.jxl").read_bytes(), frames[0])

    case("frames", "", RGB, 255 - RGB, RGB[::-1])
    case("frames_container", "--container=1", RGB, 255 - RGB, RGB[::-1])
    # Of more transforms than pictures of level 5 may have, which it does not announce.
    y, x = np.mgrid[0:300, 0:520]
    lines = np.dstack([(x + y) % 256, (2 * x + y) % 252, (x + 3 * y) % 203]).astype(np.uint8)
    case("progressive_lossless", "-p", lines)
    # Colours of video, which are shown as they are.
    case("video", "-x color_space=RGB_D65_SRG_Rel_709", RGB)
    case("video_grey", "-x color_space=Gra_D65_Rel_709", GREY)


# AVIF


def display_p3():
    """A profile of Display P3."""

    def fixed(*numbers):
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def text(words):
        return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, 2 * len(words), 28) + words.encode("utf-16-be")

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    points = {b"wtpt": (0.9642, 1, 0.8249), b"rXYZ": (0.51512, 0.2412, -0.00105)}
    points |= {b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.78407)}
    tags = {b"desc": text("P3"), b"cprt": text("None")}
    tags |= {name: b"XYZ \0\0\0\0" + fixed(*point) for name, point in points.items()}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", 132 + 12 * len(tags) + len(data), b"\0" * 4, 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + data


def avifs():
    smooth = np.dstack([X * 8, Y * 12, (X + Y) * 5]).astype(np.uint8)
    clear = np.clip(X * 12, 0, 255).astype(np.uint8)
    rgba = np.dstack([smooth, clear])

    def written(options, *arrays):
        with tempfile.TemporaryDirectory() as folder:
            names = [f"{folder}/{number}.png" for number in range(len(arrays))]
            for name, array in zip(names, arrays):
                Image.fromarray(np.ascontiguousarray(array)).save(name)
            for name in ("exif", "icc"):
                (Path(folder) / name).write_bytes({"exif": EXIF, "icc": P3}[name])
            options = options.replace("FOLDER", folder).split()
            command = ["avifenc", "--speed", "6", "--min", "10", "--max", "20", *options, *names, f"{folder}/out.avif"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return (Path(folder) / "out.avif").read_bytes()

    def opened(data):
        return Image.open(io.BytesIO(data))

    def case(name, options, *arrays, change=lambda shown: shown):
        data = written(options, *(arrays or (smooth,)))
        image = opened(data)
        shown = np.asarray(image)
        if " 400" in options and image.mode == "RGB":
            shown = shown[..., 0]
        keep(f"avif_{name}.avif", data, change(shown))

    EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
    P3 = display_p3()

    for yuv in ("444", "422", "420", "400"):
        for depth in (8, 10, 12):
            for limit in ("full", "limited"):
                case(f"{yuv}_{depth}_{limit}", f"--yuv {yuv} --depth {depth} --range {limit} --cicp 1/13/6")
    for matrix in (1, 2, 4, 5, 7, 8, 9, 12):
        case(f"matrix_{matrix}", f"--cicp 1/13/{matrix}")
    for limit in ("full", "limited"):
        case(f"matrix_0_{limit}", f"--cicp 1/13/0 --range {limit}")
    case("unspecified", "--cicp 2/2/2")
    case("lossless", "--lossless", RGB)
    for yuv in ("444", "420", "400"):
        for depth in (8, 10):
            case(f"alpha_{yuv}_{depth}", f"--yuv {yuv} --depth {depth}", rgba)
    case("alpha_multiplied", "--premultiply", rgba)
    case("alpha_multiplied_10", "--premultiply --depth 10", rgba)
    large = np.asarray(Image.fromarray(smooth).resize((128, 192)))
    case("grid", "--grid 2x3 --yuv 420", large)
    case("grid_alpha", "--grid 2x3", np.dstack([large, np.asarray(Image.fromarray(clear).resize((128, 192)))]))
    for turn in range(4):
        for flip in ("", " --imir 0", " --imir 1"):
            data = written(f"--irot {turn}{flip}", smooth)
            shown = ImageOps.exif_transpose(opened(data))
            keep(f"avif_turned_{turn}{flip.replace(' --imir ', '_')}.avif", data, np.asarray(shown))
    case("cropped", "--crop 4,6,20,12 --yuv 420", change=lambda shown: shown[6:18, 4:24])
    # An orientation that the container does not have. It does not count.
    data = written("--exif FOLDER/exif", smooth)
    shown = np.asarray(opened(data))
    keep("avif_exif.avif", data.replace(EXIF, EXIF[:18] + b"\x06" + EXIF[19:]), shown)
    case("frames", "--timescale 10", smooth, 255 - smooth, smooth[::-1])
    case("grain", "--advanced film-grain-test=5 --yuv 420")
    case("tiles", "--tilecolslog2 1 --tilerowslog2 1 --yuv 420", large)
    srgb_profile = ImageCms.createProfile("sRGB")

    def from_p3(shown):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(P3))
        return np.asarray(ImageCms.profileToProfile(Image.fromarray(shown), profile, srgb_profile))

    case("profile", "--icc FOLDER/icc", change=from_p3)
    case("primaries", "--cicp 12/13/6", change=from_p3)


def box(kind, *content, version=None):
    content = b"".join(content)
    if version is not None:
        content = bytes([version, 0, 0, 0]) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def parts(data):
    """The boxes in data, as a list of pairs."""
    found = []
    while data:
        size, kind = struct.unpack_from(">I4s", data)
        found.append((kind, data[8:size]))
        data = data[size:]
    return found


def within(data, *path):
    """The content of a box, by its kind and those around it."""
    for kind in path:
        data = dict(parts(data))[kind]
        if kind == b"meta":
            data = data[4:]
    return data


def heics():
    import pillow_heif

    smooth = np.dstack([X * 8, Y * 12, (X + Y) * 5]).astype(np.uint8)
    clear = np.clip(X * 12, 0, 255).astype(np.uint8)

    def written(options, array):
        with tempfile.TemporaryDirectory() as folder:
            if array.dtype == np.uint16:
                # Pillow does not write RGB of 16 bits.
                imagecodecs.imwrite(f"{folder}/in.png", array)
            else:
                Image.fromarray(np.ascontiguousarray(array)).save(f"{folder}/in.png")
            command = ["heif-enc", "-q", "90", *options.split(), f"{folder}/in.png", "-o", f"{folder}/out.heic"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return (Path(folder) / "out.heic").read_bytes()

    def shown(data):
        image = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True).to_pillow()
        return np.asarray(image)

    def case(name, options, array=smooth):
        data = written(options, array)
        keep(f"heic_{name}.heic", data, shown(data))

    for chroma in ("444", "422", "420"):
        case(f"{chroma}_8", f"-p chroma={chroma}")
        case(f"{chroma}_10", f"-p chroma={chroma} -b 10", deep(smooth))
    file = io.BytesIO()
    limited = {"matrix_coefficients": 1, "full_range_flag": 0}
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(file, quality=90, **limited)
    keep("heic_limited.heic", file.getvalue(), shown(file.getvalue()))
    case("grey", "", GREY)
    case("alpha", "", np.dstack([smooth, clear]))
    # libheif gives colours as they are stored.
    data = written("--premultiplied-alpha", np.dstack([smooth, clear]))
    stored = shown(data).astype(float)
    divided = np.clip(stored[..., :3] * 255 / np.maximum(stored[..., 3:], 1), 0, 255).round()
    keep("heic_alpha_multiplied.heic", data, np.dstack([divided, stored[..., 3]]))
    case("lossless", "-L -p chroma=444 --matrix_coefficients=0", RGB)

    def assembled(tiles, derived=(), transforms={}, alpha=None):
        """A file of these pictures, and of pictures derived from them: kind, data, sides, and the numbers of the items
        that they are made of. The last derived picture, or the first picture, is shown. Transforms are by number of
        the item. The last of the pictures may be the alpha of another."""
        items, properties, uses, references, datas = [], [], {}, b"", []

        def use(number, content, essential):
            properties.append(content)
            uses.setdefault(number, []).append(len(properties) | (0x80 if essential else 0))

        def refer(kind, number, others):
            return box(kind, struct.pack(f">HH{len(others)}H", number, len(others), *others))

        for number, tile in enumerate(tiles, 1):
            meta = within(tile, b"meta")
            for kind, content in parts(within(meta, b"iprp", b"ipco")):
                if kind in (b"hvcC", b"ispe", b"colr"):
                    use(number, box(kind, content), kind == b"hvcC")
            items.append((number, b"hvc1"))
            datas.append(within(tile, b"mdat"))
        if alpha:
            use(len(tiles), box(b"auxC", b"urn:mpeg:hevc:2015:auxid:1\0", version=0), True)
            references += refer(b"auxl", len(tiles), [alpha])
        for number, (kind, data, sides, others) in enumerate(derived, len(tiles) + 1):
            items.append((number, kind))
            datas.append(data)
            use(number, box(b"ispe", struct.pack(">II", *sides), version=0), False)
            references += refer(b"dimg", number, others)
        primary = len(items) if derived else 1
        for number, contents in transforms.items():
            for content in contents:
                use(number, content, True)
        references = box(b"iref", references, version=0) if references else b""
        infos = [box(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", version=2) for number, kind in items]
        table = b"".join(struct.pack(">HB", number, len(places)) + bytes(places) for number, places in uses.items())
        start = box(b"ftyp", b"heic\0\0\0\0mif1heic")

        def meta(offset):
            places = b""
            for (number, _), data in zip(items, datas):
                places += struct.pack(">HHHII", number, 0, 1, offset, len(data))
                offset += len(data)
            return box(
                b"meta",
                box(b"hdlr", b"\0\0\0\0pict", bytes(13), version=0),
                box(b"pitm", struct.pack(">H", primary), version=0),
                box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), places, version=0),
                box(b"iinf", struct.pack(">H", len(items)), *infos, version=0),
                box(b"iprp", box(b"ipco", *properties), box(b"ipma", struct.pack(">I", len(uses)), table, version=0)),
                references,
                version=0,
            )

        offset = len(start) + len(meta(0)) + 8
        return start + meta(offset) + box(b"mdat", *datas)

    def cropped(left, top, width, height, sides):
        middle = [(width, 1), (height, 1), (2 * left + width - sides[0], 2), (2 * top + height - sides[1], 2)]
        return box(b"clap", *(struct.pack(">iI", *fraction) for fraction in middle))

    # Sides of tiles are multiples of 64, as cameras have them; a part of the last ones is not shown.
    large = np.asarray(Image.fromarray(smooth).resize((192, 128)))
    tiles = [written("", large[y : y + 64, x : x + 64]) for y in (0, 64) for x in (0, 64, 128)]
    grid = bytes([0, 0, 1, 2]) + struct.pack(">HH", 180, 117)
    data = assembled(tiles, [(b"grid", grid, (180, 117), range(1, 7))])
    keep("heic_grid.heic", data, shown(data))
    # Tiles that are changed. libheif shows them changed; the library supports none, so there are no pixels beside
    # these.
    inner = cropped(16, 16, 32, 32, (64, 64))
    for name, change in [("turned", box(b"irot", b"\1")), ("flipped", box(b"imir", b"\0")), ("cropped", inner)]:
        sides = (90, 60) if name == "cropped" else (180, 117)
        grid = bytes([0, 0, 1, 2]) + struct.pack(">HH", *sides)
        changes = {number: [change] for number in range(1, 7)}
        data = assembled(tiles, [(b"grid", grid, sides, range(1, 7))], changes)
        (OUT / f"heic_grid_of_{name}.heic").write_bytes(data)
        derived = [(b"iden", b"", (sides[0] // 3 // 32 * 32,) * 2, [number]) for number in range(1, 7)]
        data = assembled(tiles, [*derived, (b"grid", grid, sides, range(7, 13))], changes)
        (OUT / f"heic_grid_of_{name}_derived.heic").write_bytes(data)
    # heif-enc pads smaller ones.
    photo = np.asarray(Image.fromarray(smooth).resize((72, 64)))
    for turn in range(4):
        for flip in ("", "0", "1"):
            transforms = [box(b"irot", bytes([turn]))] + [box(b"imir", bytes([int(axis)])) for axis in flip]
            data = assembled([written("", photo)], transforms={1: transforms})
            keep(f"heic_turned_{turn}{'_' + flip if flip else ''}.heic", data, shown(data))

    data = assembled([written("", photo)], transforms={1: [cropped(4, 6, 20, 12, (72, 64))]})
    keep("heic_cropped.heic", data, shown(data))
    # Turned and cropped, and once more.
    for turn in range(4):
        sides = (50, 40) if turn % 2 == 0 else (40, 50)
        own = [cropped(4, 6, 50, 40, (72, 64)), box(b"irot", bytes([turn])), box(b"imir", b"\1")]
        after = [cropped(3, 7, 30, 25, sides), box(b"irot", b"\1")]
        data = assembled([written("", photo)], [(b"iden", b"", sides, [1])], {1: own, 2: after})
        keep(f"heic_derived_{turn}.heic", data, shown(data))
    # Over a colour, a layer beyond two of its edges, and one that is turned.
    overlay = struct.pack(">BB4H2H4h", 0, 0, 0x3000, 0x8000, 0xC000, 0xFFFF, 90, 100, -10, -8, 40, 50)
    layers = [written("", photo), written("", photo[:, ::-1] // 2)]
    derived = [(b"iovl", overlay, (90, 100), [1, 2])]
    data = assembled(layers, derived, {2: [box(b"irot", b"\3")]})
    keep("heic_overlay.heic", data, shown(data))
    # The upper layer is transparent in part.
    mask = np.dstack([clear] * 3).repeat(4, 0).repeat(4, 1)[:64, :72]
    data = assembled([*layers, written("", mask)], derived, alpha=2)
    keep("heic_overlay_alpha.heic", data, shown(data))
    # Colours of video, which only the data itself names.
    data = written("--transfer_characteristic 6", photo).replace(b"colr", b"skip")
    keep("heic_video.heic", data, shown(data))
    data = written("--thumb 64", np.asarray(Image.fromarray(smooth).resize((256, 185))))
    keep("heic_thumbnail.heic", data, shown(data))


def webps():
    for name, options, alpha in (("lossless", {"lossless": True}, 255), ("lossy", {}, 255), ("alpha", {}, 254)):
        first, *rest = (Image.new("RGBA", (20, 14), (250, 10, blue, alpha)) for blue in (0, 255))
        file = io.BytesIO()
        first.save(file, "WEBP", save_all=True, append_images=rest, duration=100, quality=90, **options)
        keep(f"webp_animated_{name}.webp", file.getvalue(), np.asarray(Image.open(file)))


tiffs()
pngs()
gifs()
bmps()
dibs()
tgas()
jpegs()
jxls()
avifs()
heics()
webps()
