"""`/images`: pictures that runs can use."""

from fastapi import APIRouter, UploadFile
from fastapi.responses import Response

from backend.api.deps import Services, SignedIn, Starter
from backend.api.schemas.workflows import ImageOut

router = APIRouter(prefix="/images", tags=["images"])


@router.post("", status_code=201)
async def upload_image(file: UploadFile, who: Starter, services: Services, response: Response) -> ImageOut:
    """Upload a picture (multipart field `file`); use the returned `image_url` in `input_data`."""
    image_id, image_url = await services.images.add(who, await file.read())
    response.headers["Location"] = f"/images/{image_id}"
    return ImageOut(image_id=image_id, image_url=image_url)


@router.get("/samples/{name}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def get_sample(name: str, _: SignedIn, services: Services) -> Response:
    """A sample picture, which `input_data` refers to as `sample://<name>`. There is one: `invoice`."""
    return _picture(await services.images.sample(name), "image/png")


@router.get("/{image_id}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
async def get_image(image_id: str, who: SignedIn, services: Services) -> Response:
    """An uploaded picture, for its owner and for the roles Op and Admin."""
    image = await services.images.get(who, image_id)
    return _picture(image.content, image.media_type)


def _picture(content: bytes, media_type: str) -> Response:
    return Response(
        content,
        media_type=media_type,
        headers={
            "Cache-Control": "private, max-age=86400, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )
