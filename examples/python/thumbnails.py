"""Makes thumbnails of a folder of photos, each decoded in a worker process.

    python examples/python/thumbnails.py samples thumbs

A photo that crashes the decoder, takes longer than ten seconds or asks for too much memory costs one line of the
report. Needs Pillow.
"""

import sys
from concurrent.futures import as_completed
from pathlib import Path

import arenite
from PIL import Image

SIZE = (224, 224)


def thumbnail(photo: Path, out: Path) -> str:
    with Image.open(photo) as image:
        image.thumbnail(SIZE)
        image.convert("RGB").save(out / f"{photo.stem}.jpg")
        return f"{photo.name}: {image.width}x{image.height}"


def main(source: str, target: str) -> int:
    photos = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    if not photos:
        print(f"no photos in {source}", file=sys.stderr)
        return 1
    out = Path(target)
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with arenite.Executor(memory_limit="1GiB", preload=["PIL.Image"]) as ex:
        careful = ex.options(deadline=10)
        jobs = {careful.submit(thumbnail, photo, out): photo for photo in photos}
        for job in as_completed(jobs):
            try:
                print(job.result())
            except Exception as error:
                failed += 1
                print(f"{jobs[job].name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python thumbnails.py PHOTOS THUMBS")
    sys.exit(main(*sys.argv[1:]))
