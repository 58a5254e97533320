"""The page of the server, and what it may do in a browser."""

import base64
import hashlib
import re
from importlib.resources import files


def page() -> tuple[bytes, str]:
    """Return the page and its Content-Security-Policy.

    The policy lets exactly this style and this script run, by their SHA-256 sums, and lets the script talk to this
    server alone. So even a mistake in the page could not make a browser run what stands in a text.
    """
    content = files("minitl.serving").joinpath("page.html").read_bytes()
    sources = {kind: _sums(content, tag) for kind, tag in (("style-src", b"style"), ("script-src", b"script"))}
    rules = [
        "default-src 'none'",
        *(f"{kind} {sums}" for kind, sums in sources.items()),
        "connect-src 'self'",
        "img-src data:",  # the icon
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return content, "; ".join(rules)


def _sums(content: bytes, tag: bytes) -> str:
    found = re.findall(b"<" + tag + b">(.*?)</" + tag + b">", content, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in found)
