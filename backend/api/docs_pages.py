"""`/docs` and `/redoc`: the API's documentation, from files of our own, so that it works without the internet."""

import asyncio
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response

from backend.core.problems import NotFound

ASSETS = "/docs/assets"

# The package's own function makes an application; only its files are of use.
_FOLDER = Path(str(files("fastapi_offline"))) / "static"
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:;"
    " connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY}

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{assets}/favicon.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""

# In a file of its own: inline scripts are refused by the pages' Content-Security-Policy.
_START = """\
window.ui = SwaggerUIBundle({{
  url: "{base}/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset].filter(Boolean),
}});
"""


def install(app: FastAPI, base: str = "") -> None:
    """Add the pages of an application that is mounted at `base`. Nobody needs to be signed in to read them."""
    assets = f"{base}{ASSETS}"

    async def asset(name: str) -> Response:
        headers = {"Cache-Control": "public, max-age=86400"}
        if name == "start.js":
            return Response(_START.format(base=base), headers=headers, media_type="text/javascript")
        if name not in _FILES:
            raise NotFound("There is no such file.")
        if name == "redoc.standalone.js":
            return Response(await asyncio.to_thread(_redoc), headers=headers, media_type="text/javascript")
        return FileResponse(_FOLDER / name, headers=headers)

    async def docs() -> HTMLResponse:
        return _page(
            f"{app.title}: API",
            assets,
            f'<link rel="stylesheet" href="{assets}/swagger-ui.css">',
            f'<div id="docs"></div>\n<script src="{assets}/swagger-ui-bundle.js"></script>\n'
            f'<script src="{assets}/start.js"></script>',
        )

    async def redoc() -> HTMLResponse:
        return _page(
            f"{app.title}: API reference",
            assets,
            "<style>body { margin: 0 }</style>",
            f'<redoc spec-url="{base}/openapi.json"></redoc>\n<script src="{assets}/redoc.standalone.js"></script>',
        )

    app.add_api_route(f"{ASSETS}/{{name}}", asset, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/redoc", redoc, include_in_schema=False)


@cache
def _redoc() -> bytes:
    """Redoc without the logo that it takes from its maker's site."""
    return (
        (_FOLDER / "redoc.standalone.js").read_bytes().replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")
    )


def _page(title: str, assets: str, head: str, body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=escape(title), assets=assets, head=head, body=body), headers=_HEADERS)
