"""The pages for people: the web page and the API page. Both load everything from this server."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import clients

WEB_FOLDER = Path(clients.__file__).parent / "web"

# Nothing is loaded from elsewhere, and no inline script runs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles on its elements, and its pictures are data.
_API_PAGE_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)
# Browsers ask whether a file changed (by its ETag) before they use it: after an upgrade no old module is left.
_REVALIDATE = {"cache-control": "no-cache"}


class _RevalidatedFiles(StaticFiles):
    """Static files that a browser asks for again before it uses them."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_REVALIDATE)
        return response


def mount_pages(app: FastAPI) -> None:
    """Serve the page at `/`, the API page at `/docs`, and the files of both below `/static`."""
    app.mount("/static/swagger", _RevalidatedFiles(directory=_swagger_folder()), name="swagger")
    app.mount("/static", _RevalidatedFiles(directory=WEB_FOLDER), name="static")
    for path, name, policy in (("/", "index.html", _POLICY), ("/docs", "docs.html", _API_PAGE_POLICY)):
        headers = {"content-security-policy": policy, **_REVALIDATE}
        app.add_api_route(path, _page(WEB_FOLDER / name, headers), methods=["GET"], include_in_schema=False)


def _page(file: Path, headers: Mapping[str, str]) -> Any:
    async def page() -> FileResponse:
        return FileResponse(file, headers=headers)

    return page


def _swagger_folder() -> Path:
    """Swagger UI's files, which fastapi-offline carries; its own routes are not used."""
    spec = find_spec("fastapi_offline")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "static"
