"""`/images`: pictures that runs can use."""

from typing import Annotated

from fastapi import APIRouter, Query, UploadFile
from fastapi.responses import Response

from backend.api.deps import Authenticated, Services, Starter, TokenReader
from backend.api.schemas.workflows import ImageOut

router = APIRouter(prefix="/images", tags=["images"])


@router.post("", status_code=201)
async def upload_image(file: UploadFile, who: Starter, services: Services, response: Response) -> ImageOut:
    """Upload a picture (multipart field `file`); use the returned `image_url` in `input_data`."""
    image_id, image_url = await services.images.add(who, await file.read())
    response.headers["Location"] = f"/images/{image_id}"
    return ImageOut(image_id=image_id, image_url=image_url)


@router.get("/samples/{name}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def get_sample(name: str, _: Authenticated, services: Services) -> Response:
    """A sample picture, which `input_data` refers to as `sample://<name>`. There is one: `invoice`."""
    return _picture(await services.images.sample(name), "image/png")


@router.get("/remote", response_class=Response, responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}})
async def get_remote_image(
    url: Annotated[str, Query(min_length=1, max_length=4_096)], who: TokenReader, services: Services
) -> Response:
    """The picture at an `https://` or `http://` address, scaled down to 2048 pixels, as a page may show it.

    The backend fetches it, with the checks that pictures of runs get, so that its owner learns nothing about who looks.
    """
    return _picture(*await services.images.remote(who, url), max_age=300)


@router.get("/{image_id}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
async def get_image(image_id: str, who: TokenReader, services: Services) -> Response:
    """An uploaded picture, for its owner and for whoever sees all runs: the roles Viewer, Op and Admin."""
    image = await services.images.get(who, image_id)
    return _picture(image.content, image.media_type)


def _picture(content: bytes, media_type: str, *, max_age: int = 86_400) -> Response:
    return Response(
        content,
        media_type=media_type,
        headers={
            "Cache-Control": f"private, max-age={max_age}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )
