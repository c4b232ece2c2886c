"""/docs: the OpenAPI document to browse and try out, by Swagger UI's own files, served by us.

Nothing comes from anywhere else and no script stands in the page, so the strictest
Content-Security-Policy that Swagger UI can live with holds. Every reference is relative: it works
behind a proxy that adds a prefix.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import trio
from quart import Quart, Response, request

from engine.errors import NotFoundError

FILES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
"""What is served of the package ``swagger-ui-py``; the rest of it (an editor) is not."""

START = """\
// "validatorUrl: null" keeps the document from being shown to a validator on the Internet.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "none",
  filter: true,
  tryItOutEnabled: false,
  validatorUrl: null,
});
"""

# "data:" is for the icons inside Swagger UI's style sheet.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Outspool API</title>
<link rel="stylesheet" href="docs/swagger-ui.css?{edition}">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png?{edition}">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>The description itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js?{edition}"></script>
<script src="docs/start.js?{edition}"></script>
</body>
</html>
"""

# A file's address changes with its contents: browsers need not ask again.
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


def mount_docs(app: Quart) -> None:
    """Serve ``/docs`` and ``/docs/<file>`` on ``app``."""
    edition = hashlib.sha256((version("swagger-ui-py") + START).encode()).hexdigest()[:12]
    page = _PAGE.format(edition=edition)
    folder = Path(str(resources.files("swagger_ui"))) / "static"

    async def docs() -> Response:
        tag = hashlib.sha256(page.encode()).hexdigest()[:16]
        known = request.if_none_match.contains(tag)
        response = _served("" if known else page, "text/html; charset=utf-8", _ASK_AGAIN)
        response.status_code = 304 if known else 200
        response.set_etag(tag)
        return response

    async def start() -> Response:
        return _served(START, "text/javascript; charset=utf-8", _FOR_EVER)

    async def file(name: str) -> Response:
        if name not in FILES:
            raise NotFoundError("Not Found")
        return _served(await trio.Path(folder, name).read_bytes(), FILES[name], _FOR_EVER)

    for path, view in (("/docs", docs), ("/docs/start.js", start), ("/docs/<name>", file)):
        app.add_url_rule(path, endpoint=path, view_func=view, provide_automatic_options=False)


def _served(body: str | bytes, content_type: str, cache: str) -> Response:
    response = Response(body, 200, content_type=content_type)
    response.headers["Cache-Control"] = cache
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
