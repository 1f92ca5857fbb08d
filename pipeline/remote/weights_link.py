"""The link under which a provider fetches a LoRA: only looked at here, never followed."""

from __future__ import annotations

from ..download.address import may_be_public, parse_url
from ..download.errors import DownloadError, redact
from ..download.source import CIVITAI_HOSTS, parse_source
from .errors import Kind, RemoteError


def weights_link(source: str) -> str:
    """An https link to a .safetensors file on a public host. Raises RemoteError (VALIDATION) for anything else."""
    try:
        remote = parse_source(source)
        url = parse_url(remote.link)
    except DownloadError as error:
        raise RemoteError(Kind.VALIDATION, f"{error} Nothing was sent.") from None
    if url.host.removeprefix("www.") in CIVITAI_HOSTS:
        raise RemoteError(Kind.VALIDATION, f"{redact(source)}: Civitai hands files out to signed-in users, and a "
                          "provider is not signed in. Give a link that anybody may open. Nothing was sent.")
    if remote.look_up:
        raise RemoteError(Kind.VALIDATION, f"{source} names a repository; a provider needs the file. Give "
                          "owner/repo/file.safetensors or the file's https link. Nothing was sent.")
    if not url.path.lower().endswith(".safetensors"):
        raise RemoteError(Kind.VALIDATION, f"{url} is not the link of a .safetensors file, the only kind of LoRA "
                          "that is taken. Nothing was sent.")
    if not may_be_public(url.host):
        raise RemoteError(Kind.VALIDATION, f"{url} is on this machine or its network, where no provider can read it. "
                          "Nothing was sent.")
    return url.text
