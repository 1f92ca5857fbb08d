"""Read what the user's environment says of the network: proxies, certificate authorities, a mirror of Hugging Face.

The variables are those that requests, curl, OpenSSL and huggingface_hub read; on Windows and macOS the system's own
proxy settings count too (urllib.request.getproxies).
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from functools import cache
from urllib.parse import urlsplit

from .address import Url, parse_url
from .errors import DownloadError

HUB = "https://huggingface.co"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
CA_FILE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
CA_VARIABLES = (*CA_FILE_VARIABLES, "SSL_CERT_DIR")
PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
"""A SOCKS proxy of any of these looks names up itself; socks4 is taken for socks4a, and socks5 for socks5h."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def environment_proxy(url: Url) -> str | None:
    """Return the proxy's URL, with its name and password, for a link; None when it is to be reached directly.

    HTTPS_PROXY goes before ALL_PROXY; NO_PROXY lists hosts, domains and networks without a proxy; small letters go
    before capitals. Raises DownloadError for a value that is no proxy, or a SOCKS proxy without PySocks.
    """
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url.text, get_environ_proxies(url.text))
    if not proxy:
        return None
    proxy = proxy if _SCHEME.match(proxy) else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        valid = parts.scheme.lower() in PROXY_SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise DownloadError(f"The proxy {shown_proxy(proxy)} cannot be used. Set HTTPS_PROXY to a value such as "
                            "http://proxy.example:3128, or clear it.")
    if is_socks(proxy):
        try:
            import socks  # noqa: F401 - PySocks, which urllib3 needs for this
        except ImportError:
            raise DownloadError(f"The proxy {shown_proxy(proxy)} speaks SOCKS, which needs the Python package PySocks. "
                                "Install it (pip install PySocks), or set HTTPS_PROXY to an http proxy.") from None
    return proxy


def is_socks(proxy: str) -> bool:
    """Return whether a proxy's URL is of a SOCKS proxy."""
    return proxy.lower().startswith("socks")


def shown_proxy(proxy: str) -> str:
    """Return a proxy's host and port, without its name and password."""
    return _SCHEME.sub("", proxy).rpartition("@")[2].partition("/")[0]


def trusted_authorities(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's authorities, certifi's, and those that the user's variables name.

    Raises DownloadError, naming the variable, for a file or folder that holds no certificates or cannot be read.
    """
    return _context(tuple((name, environ[name]) for name in CA_VARIABLES if environ.get(name)))


@cache
def _context(named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    from requests.certs import where

    context = ssl.create_default_context()
    context.load_verify_locations(where())
    for name, path in named:
        try:
            if os.path.isdir(path):
                context.load_verify_locations(capath=path)
            elif name in CA_FILE_VARIABLES:
                context.load_verify_locations(cafile=path)
            else:
                raise FileNotFoundError
        except OSError as error:  # ssl.SSLError is one too
            why = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror or "no such folder"
            raise DownloadError(f"{name} names {path}, which cannot be used: {why}. Set it to a file of certificates "
                                "in PEM format, or clear it.") from None
    return context


def hub_mirror(environ: Mapping[str, str] = os.environ) -> Url | None:
    """Return the mirror that HF_ENDPOINT names, with its path; None for none, or for Hugging Face itself.

    Raises DownloadError for a value that is no https link.
    """
    given = environ.get(ENDPOINT_VARIABLE, "").strip()
    if not given:
        return None
    try:
        url = parse_url(given)
    except DownloadError as error:
        raise DownloadError(f"{ENDPOINT_VARIABLE} cannot be used: {error} Set it to a value such as "
                            f"https://hub.example, or clear it.") from None
    if "?" in url.target:
        raise DownloadError(f"{ENDPOINT_VARIABLE} cannot be used: {url} has a query. Set it to a value such as "
                            "https://hub.example, or clear it.")
    return None if url.origin == HUB else url
