"""Check that a request comes from ComfyUI's own page: whatever changes something, or tells of it, asks this first."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from .address import is_address, may_be_public


def other_site_fault(headers: Mapping[str, str]) -> str:
    """Return a sentence when a browser's request comes from another site's page; else an empty string.

    headers: names in small letters. Beside ComfyUI's own check, which --enable-cors-header switches off. A request of
    no browser (no Origin, no Sec-Fetch-Site) has no page.
    """
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if (headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
            or (origin is not None and _split(origin).netloc.lower() != host)):
        return "This is for ComfyUI's own page alone."
    return ""


def public_name_fault(headers: Mapping[str, str]) -> str:
    """Return a sentence when this server is asked under a name that a stranger can own; else an empty string.

    Such a name may be pointed at this machine (DNS rebinding), and its page is then the server's own. So what keeps
    keys and money is settled under names and addresses that no stranger owns.
    """
    name = _split(f"//{headers.get('host', '').lower()}").hostname or ""
    if may_be_public(name) and not is_address(name):
        return (f"Keys and settings are not taken under the public name {name}, where anybody may send them. Set the "
                "environment variables, or open ComfyUI by its address (127.0.0.1, or that of its network).")
    return ""


def _split(url: str) -> SplitResult:
    """Return the parts of an address; all empty when it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
