"""A web service that makes thumbnails of uploaded pictures, each decoded in a sandboxed worker process.

    uvicorn --app-dir examples/python uploads:app
    curl -F picture=@samples/coffee.png http://127.0.0.1:8000/thumbnail -o thumbnail.jpg

An upload that crashes the decoder, hangs it or asks for too much memory is answered with an error, and its process is
replaced. The decoder may open no file and no socket. When a client goes away, its work ends. Needs fastapi, uvicorn,
python-multipart, Pillow and numpy.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator

import arenite
import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response, UploadFile

LARGEST = 32 << 20
SIZE = (224, 224)


def thumbnail(upload: np.ndarray) -> bytes:
    """Runs in a worker. The upload is in shared memory."""
    from PIL import Image

    with Image.open(io.BytesIO(upload), formats=["JPEG", "PNG", "WEBP"]) as image:
        image.thumbnail(SIZE)
        made = io.BytesIO()
        image.convert("RGB").save(made, "JPEG")
        return made.getvalue()


def load() -> None:
    """Runs when a worker starts, before it loses the right to open files."""
    from PIL import Image

    Image.init()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with arenite.Executor(
        2, sandbox="strict", memory_limit="1GiB", preload=["numpy", __name__], initializer=load
    ) as executor:
        app.state.decoder = executor.options(deadline=10)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/thumbnail")
async def make_thumbnail(request: Request, picture: UploadFile) -> Response:
    if (picture.size or 0) > LARGEST:
        raise HTTPException(413, f"at most {LARGEST >> 20} MiB")
    upload = np.frombuffer(await picture.read(), np.uint8)
    task = asyncio.wrap_future(request.app.state.decoder.submit(thumbnail, upload))
    gone = asyncio.create_task(leaves(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return Response(status_code=499)  # The client is gone.
        return Response(task.result(), media_type="image/jpeg")
    except arenite.DeadlineExceeded:
        raise HTTPException(504, "decoding takes too long") from None
    except MemoryError:
        raise HTTPException(422, "decoding takes too much memory") from None
    except arenite.WorkerDied as died:
        raise HTTPException(422, f"decoding crashes (signal {died.signal})") from None
    except Exception as error:
        raise HTTPException(422, f"not a picture: {error}") from None
    finally:
        # Also ends the work in the worker.
        task.cancel()
        gone.cancel()


async def leaves(request: Request) -> None:
    """Returns when the client has gone away."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
