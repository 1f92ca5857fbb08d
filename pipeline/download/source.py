"""Read what a user typed: which file is to be fetched, and what it is called. Makes no request.

Links of the Hub: huggingface.co/docs/hub. AIR identifiers: developer.civitai.com/site/guide/air. A file's name by the
server: Content-Disposition, RFC 6266; it is for show and for hints, never a path on this machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ..http.address import Url, parse_url
from ..http.environment import HUB
from ..http.errors import DownloadError

CIVITAI = "https://civitai.com"
CIVITAI_HOSTS = ("civitai.com", "civitai.red", "civitai.green")
HUB_REPO, CIVITAI_MODEL = "hub repository", "civitai model"

LONGEST_HEADER, LONGEST_NAME = 2_000, 200
"""Characters that are looked at, and that are kept of a name."""
_ENCODED = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*(?:"([^"]*)"|([^;\s"]+))', re.IGNORECASE)
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".sft")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REPO = re.compile(rf"(?:hf:(?://)?)?({_NAME})/({_NAME})(?:@([\w./-]+?))?(?:/(.+))?")
_AIR = re.compile(r"(?:urn:)?(?:air:)?(?:[\w-]+:)?(?:[\w-]+:)?civitai:(\d+)(?:@(\d+))?(?:\+\d+)?(?:\.\w+)?",
                  re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NO_SCHEME = re.compile(r"(?://)?((?:www\.)?(?:huggingface\.co|hf\.co|civitai\.(?:com|red|green))(?:[/?#].*)?)",
                        re.IGNORECASE | re.DOTALL)
"""A link of these hosts as it is copied from a page, without its https://."""
_TOKEN_NAMES = ("token", "access_token", "api_key", "apikey")


@dataclass(frozen=True)
class Remote:
    """The file, or the page with files, that a source names."""

    link: str
    """https link of the file, or of the page of its repository or model when the file is still to be looked up."""
    look_up: str = ""
    """HUB_REPO or CIVITAI_MODEL when the file is still to be looked up."""
    revision: str = "main"
    folder: str = ""
    """Of a repository: where to look, "" for everywhere."""


def is_remote(text: str) -> bool:
    """Return whether a source reads as a link, a Hub name or a Civitai identifier, rather than as a file's name.

    `owner/repo/file.safetensors` reads as both: look for a file of that name first.
    """
    text = _with_scheme(text)
    if _SCHEME.match(text) or _AIR.fullmatch(text) or text.startswith("hf:"):
        return True
    match = _REPO.fullmatch(text)
    if match is None:
        return False
    return match[4] is not None or not match[2].lower().endswith(_WEIGHT_SUFFIXES)


def _with_scheme(text: str) -> str:
    text = text.strip()
    bare = _NO_SCHEME.fullmatch(text)
    return f"https://{bare[1]}" if bare else text


def parse_source(text: str) -> Remote:
    """Read what a user typed: an https link, `owner/repo`, `owner/repo/file.safetensors`, `urn:air:...:civitai:1@2`.

    A revision stands after the repository: `owner/repo@revision`. Raises DownloadError for anything else.
    """
    text = _with_scheme(text)
    if air := _AIR.fullmatch(text):
        return _civitai(CIVITAI, air[1], air[2])
    if _SCHEME.match(text) and not text.startswith("hf:"):
        return _from_link(parse_url(text))
    match = _REPO.fullmatch(text)
    if match is None or not is_remote(text):
        raise DownloadError(f"{text[:200]!r} names no file on the internet. Give an https link, a Hugging Face "
                            "owner/repo or owner/repo/file.safetensors, or a Civitai link or AIR.")
    owner, repo, revision, path = match.groups()
    if path:
        return _hub_file(f"{owner}/{repo}", revision or "main", path)
    return _hub_repo(f"{owner}/{repo}", revision or "main", "")


def _from_link(url: Url) -> Remote:
    query = parse_qs(urlsplit(url.text).query)
    if any(name.lower() in _TOKEN_NAMES for name in query):
        raise DownloadError(f"{url}: the link holds a token, which would be saved with the workflow and read by "
                            "whoever gets it. Take it out, and set the environment variable HF_TOKEN or "
                            "CIVITAI_API_TOKEN instead.")
    parts = [unquote(part) for part in url.path.split("/") if part]
    host = url.host.removeprefix("www.")
    if host in ("huggingface.co", "hf.co") and len(parts) >= 2 and parts[0] not in ("datasets", "spaces", "api"):
        return _from_hub_link(parts, url)
    if host in CIVITAI_HOSTS:
        origin = f"https://{host}"
        if parts[:1] == ["models"] and len(parts) >= 2 and parts[1].isdigit():
            return _civitai(origin, parts[1], query.get("modelVersionId", [None])[0])
        if parts[:1] == ["model-versions"] and len(parts) >= 2 and parts[1].isdigit():
            return _civitai(origin, "", parts[1])
        if parts[:3] == ["api", "download", "models"]:
            return Remote(origin + url.target)
        raise DownloadError(f"{url} is not the page of a model. Give the link of the model or of its download button.")
    return Remote(url.text)


def _from_hub_link(parts: list[str], url: Url) -> Remote:
    repo, kind, rest = "/".join(parts[:2]), parts[2:3], parts[3:]
    if kind in (["blob"], ["resolve"], ["raw"]) and len(rest) >= 2:
        return _hub_file(repo, rest[0], "/".join(rest[1:]))
    if not kind or kind == ["tree"]:
        return _hub_repo(repo, rest[0] if rest else "main", "/".join(rest[1:]))
    raise DownloadError(f"{url} is neither a file nor a repository of Hugging Face. Give the link of the file.")


def _hub_file(repo: str, revision: str, path: str) -> Remote:
    return Remote(f"{HUB}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}")


def _hub_repo(repo: str, revision: str, folder: str) -> Remote:
    tree = f"{HUB}/{repo}/tree/{quote(revision, safe='')}" + (f"/{quote(folder)}" if folder else "")
    return Remote(tree, HUB_REPO, revision, folder)


def _civitai(origin: str, model: str, version: str | None) -> Remote:
    if version:
        if not version.isdigit():
            raise DownloadError(f"The Civitai link names the version {version[:40]!r}, which is no number. Copy it "
                                "again.")
        return Remote(f"{origin}/api/download/models/{version}")
    return Remote(f"{origin}/models/{model}", CIVITAI_MODEL)


def said_name(disposition: str | None) -> str | None:
    """Return the file's name in a Content-Disposition header, without folders; None when it says none."""
    if not disposition or len(disposition) > LONGEST_HEADER:
        return None
    if encoded := _ENCODED.search(disposition):
        name = unquote(encoded[2], encoded[1], "replace")
    elif plain := _PLAIN.search(disposition):
        name = (plain[1] or plain[2] or "").encode("latin-1").decode("utf-8", "replace")  # as browsers read it
    else:
        return None
    return _shown(name.replace("\\", "/").rpartition("/")[2]) or None


def full_name(link: str, said: str | None) -> str:
    """Return the path in a link and behind it what the server calls the file; neither the link's host nor its query."""
    path = _shown(unquote(urlsplit(link).path))
    return path if said is None or path.endswith(f"/{said}") else f"{path}/{said}"


def _shown(name: str) -> str:
    return "".join(c for c in name.strip() if c.isprintable())[-LONGEST_NAME:]
