"""Files of LoRAs that are named by their repository, looked up at Hugging Face where a provider does not do so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..download.fetch import file_link
from ..download.source import HUB_REPO, Remote, parse_source
from ..http.errors import DownloadError
from ..http.policy import Policy
from ..http.session import Session
from ..http.threads import in_thread
from .errors import ErrorKind, RemoteError
from .plan import Plan, expert_of, sent_loras


async def with_files(plan: Plan, policy: Policy, wait: Callable[[float], Awaitable[None]]) -> Plan:
    """Return the plan with the link of the one file of each repository, and the expert that its name tells.

    No token is sent: what a provider is to fetch must be there for everybody. Raises RemoteError (VALIDATION) for a
    repository that cannot be read, or does not hold exactly one file.
    """
    pages = [link for link, *_ in plan.loras if _repository(link)]
    if not pages or plan.model.lora_files:  # a server with this pack finds the file itself
        return plan
    files = {page: await in_thread(lambda page=page: _file(page, policy), wait) for page in dict.fromkeys(pages)}
    inferred: list[str] = []
    loras = tuple((files.get(link, link), scale, expert_of(lora, files[link], inferred) if link in files else expert)
                  for lora, (link, scale, expert) in zip(sent_loras(plan.clip.loras), plan.loras, strict=True))
    return replace(plan, loras=loras, inferred=(*plan.inferred, *inferred))


def _repository(link: str) -> Remote | None:
    """Return the repository that an https link is the page of; None for a file, and for a name without https."""
    if not link.startswith("https://"):
        return None
    remote = parse_source(link)
    return remote if remote.look_up == HUB_REPO else None


def _file(page: str, policy: Policy) -> str:
    session = Session(policy)
    try:
        return file_link(session, _repository(page))
    except DownloadError as error:
        raise RemoteError(ErrorKind.VALIDATION, f"{error} Nothing was bought.") from None
    finally:
        session.close()
