"""Which file a repository of Hugging Face or a model of Civitai stands for, asked of their APIs.

Hub: GET /api/models/{repo}/revision/{revision} -> siblings[].rfilename. Civitai: GET /api/v1/models/{id} ->
modelVersions[].id, newest first (developer.civitai.com/site/reference).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

from ..size_text import size_text
from .address import parse_url
from .answers import check_status
from .errors import DownloadError
from .source import CIVITAI_MODEL, HUB_REPO, Remote
from .transport import Client

MAX_ANSWER = 2**24
NAMED = 12
"""Files that an error names at most."""


def file_link(client: Client, remote: Remote) -> str:
    """The https link of the file itself; asks only when the source leaves it open.

    Raises DownloadError when there is no such file, or several.
    """
    if remote.look_up == HUB_REPO:
        return _of_repository(client, remote)
    if remote.look_up == CIVITAI_MODEL:
        return _of_model(client, remote)
    return remote.link


def _of_repository(client: Client, remote: Remote) -> str:
    url = parse_url(remote.link)
    repo = "/".join(url.path.split("/")[1:3])
    revision = quote(remote.revision, safe="")
    found = _ask(client, f"{url.origin}/api/models/{repo}/revision/{revision}")
    names = [str(item.get("rfilename", "")) for item in _list(found, "siblings", remote.link)]
    inside = f"{remote.folder}/" if remote.folder else ""
    files = sorted(name for name in names if name.startswith(inside) and name.lower().endswith(".safetensors"))
    if not files:
        raise DownloadError(f"{unquote(remote.link)} holds no safetensors file. Give the link of the file.")
    if len(files) > 1:
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        raise DownloadError(f"{repo} holds {len(files)} safetensors files: {', '.join(files[:NAMED])}{more}. Say "
                            f"which, as in {repo}/{files[0]}.")
    return f"{url.origin}/{repo}/resolve/{revision}/{quote(files[0])}"


def _of_model(client: Client, remote: Remote) -> str:
    url = parse_url(remote.link)
    found = _ask(client, f"{url.origin}/api/v1{url.path}")
    versions = _list(found, "modelVersions", remote.link)
    version = versions[0].get("id") if versions else None
    if not isinstance(version, int):
        raise DownloadError(f"{remote.link} has no version to download. Give the link of the download button.")
    return f"{url.origin}/api/download/models/{version}"


def _ask(client: Client, link: str) -> Any:
    answer = client.get(link, {"Accept": "application/json"})
    try:
        check_status(answer, 200)
        text = answer.read(MAX_ANSWER + 1)
    finally:
        answer.close()
    if len(text) > MAX_ANSWER:
        raise DownloadError(f"{answer.url} answers with more than {size_text(MAX_ANSWER)}. Give the link of the file.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DownloadError(f"{answer.url} does not answer as expected. Give the link of the file.") from None


def _list(found: Any, name: str, link: str) -> list[dict[str, Any]]:
    items = found.get(name) if isinstance(found, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DownloadError(f"{link} could not be looked up: the answer is not as expected. Give the link of the file.")
    return items
