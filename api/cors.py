"""Pages of other origins as clients (CORS, Fetch Standard §3.2): the origins an operator lists.

Without any listed nothing is said, and ``OPTIONS`` is a verb that no path has.
"""

from __future__ import annotations

from quart import Quart, Response, request

ANY = "*"
_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
_REQUEST_HEADERS = (
    "Authorization, Authentication, Content-Type, X-Requested-With, X-HTTP-Method-Override,"
    " X-Request-Id"
)
_RESPONSE_HEADERS = (
    "Content-Disposition, Content-Length, Content-Type, Link, Retry-After, X-Request-Id,"
    " X-Total-Count"
)
_PREFLIGHT_AGE_S = 600


def mount_cors(app: Quart, origins: tuple[str, ...]) -> None:
    """Let scripts of ``origins`` call ``app``; ``*`` lets any do so, without credentials."""
    if not origins:
        return

    async def answer_preflight() -> Response | None:
        # 200 and empty, as deployed servers say it; it is asked without credentials.
        return Response("", 200) if request.method == "OPTIONS" else None

    async def allow(response: Response) -> Response:
        response.headers.update(_allowed(request.headers.get("Origin", ""), origins))
        response.vary.add("Origin")
        return response

    app.before_request(answer_preflight)
    app.after_request(allow)


def _allowed(origin: str, origins: tuple[str, ...]) -> dict[str, str]:
    if origin in origins and origin != ANY:
        # Only who was named may send what a browser remembers.
        who = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
        }
    elif origin and ANY in origins:
        who = {"Access-Control-Allow-Origin": ANY}
    else:
        return {}
    return {
        **who,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _REQUEST_HEADERS,
        "Access-Control-Expose-Headers": _RESPONSE_HEADERS,
        "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
    }
