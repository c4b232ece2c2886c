"""/unsubscribe/<token>: where the links in mails lead. No login, no cookie, no script, no redirect.

A GET changes nothing: mail scanners follow every link there is. A POST puts the address on the
do-not-contact list, be it by the button of the page or by the mail program itself (RFC 8058 §3.2);
what it sends along is not read.
"""

from __future__ import annotations

import html

from quart import Quart, Response

from engine.app import Engine
from engine.errors import UnavailableError
from engine.unsubscribes import PATH

POLICY = (
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "style-src 'none'"
)
_RETRY_AFTER_S = 60

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
{text}
</body>
</html>
"""
# A form without an action is sent to where the page came from, behind whatever proxy.
_ASK = """\
<p>Stop sending e-mail to <b>{address}</b>?</p>
<form method="post">
<input type="hidden" name="List-Unsubscribe" value="One-Click">
<button type="submit">Unsubscribe</button>
</form>"""
_DONE = "<p><b>{address}</b> gets no more e-mail from this sender.</p>"
_UNKNOWN = "<p>This link is not complete, or it is none of ours.</p>"
_LATER = "<p>This cannot be done at present. Please try again in a few minutes.</p>"


def mount_unsubscribe(app: Quart, engine: Engine) -> None:
    """Serve ``/unsubscribe/<token>`` on ``app``."""

    async def ask(token: str) -> Response:
        try:
            found = await engine.unsubscribes.known(token)
        except UnavailableError:
            return _later()
        if found is None:
            return _page("Unknown link", _UNKNOWN, 404)
        return _page("Unsubscribe", _ASK, 200, found.masked)

    async def do(token: str) -> Response:
        try:
            found = await engine.unsubscribes.unsubscribe(token)
        except UnavailableError:
            return _later()
        if found is None:
            return _page("Unknown link", _UNKNOWN, 404)
        return _page("Unsubscribed", _DONE, 200, found.masked)

    for verb, view in (("GET", ask), ("POST", do)):
        app.add_url_rule(
            f"{PATH}/<token>",
            endpoint=f"{verb} {PATH}",
            view_func=view,
            methods=[verb],
            provide_automatic_options=False,
        )


def _later() -> Response:
    response = _page("Please try again", _LATER, 503)
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def _page(title: str, text: str, status: int, address: str = "") -> Response:
    body = _PAGE.format(title=title, text=text.format(address=html.escape(address)))
    response = Response(body, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    # The address of the page is all that is needed to unsubscribe: tell it to nobody.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
