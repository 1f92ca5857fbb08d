"""What a provider's file translates: our plan into its requests, and its answers into our states. No I/O of its own.

A conversation of several requests is a generator: it yields a Request, is sent the Reply, and returns what it found.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .api import Reply, Request
from .errors import Kind, RemoteError
from .job import State
from .plan import Plan, RemoteModel

if TYPE_CHECKING:
    from .webhooks.signatures import Scheme

T = TypeVar("T")
Steps = Generator[Request, Reply, T]


@dataclass(frozen=True)
class Progress:
    """What a provider says of a job."""

    state: State
    """QUEUED, RUNNING, DOWNLOADING when it is finished, FAILED, CANCELED or LOST."""
    url: str = ""
    """Of the finished clip."""
    place: int | None = None
    """In the queue."""
    price: float | None = None
    """US dollars that were billed, where the provider says so."""
    kind: Kind = Kind.PROVIDER_FAILED
    message: str = ""
    """Why it failed, in the provider's words; or a word that is not known."""


@dataclass(frozen=True)
class Candidate:
    """A job in a provider's own history."""

    remote_id: str
    model: str
    created: float
    """Seconds since 1970."""
    image_url: str | None = None
    """The picture it was given, where the history tells."""


class Adapter(Protocol):
    """A provider."""

    name: str
    title: str
    variables: tuple[str, ...]
    """Environment variables that hold its key, by rank."""
    scheme: str
    """Of the Authorization header."""
    origins: tuple[str, ...]
    """Where the key may be sent."""
    models: tuple[RemoteModel, ...]
    """The first, which takes LoRAs and is for everybody, is what a user gets who chooses none."""
    concurrent: int
    """Jobs that a new account may have under way at once; further ones wait here."""
    patient: float
    """Seconds for which a job that was just accepted may still be unknown to the status call."""
    listed_after: float
    """Seconds after which its history, where it has one, holds every job."""
    webhook: Scheme
    """How its callbacks are signed."""

    def refusal(self, reply: Reply) -> RemoteError | None:
        """The error that an answer states, of kind TRANSIENT or RATE_LIMIT when asking again may help; None for a
        good answer, that of a failed job included."""

    def upload(self, picture: bytes, content_type: str) -> Steps[str]:
        """Bring the picture to the provider; returns the link to name it by."""

    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        """The paid request's parameters."""

    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        """The paid request; `webhook` is "" or the https link to be told at."""

    def accepted(self, reply: Reply) -> str:
        """The job's id in the answer to it. Raises RemoteError when there is none."""

    def poll(self, model_name: str, remote_id: str) -> Steps[Progress]:
        """Ask how a job stands."""

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        """Call a job off; None where the provider has no such call."""

    def price(self, plan: Plan, body: dict[str, Any]) -> Steps[float | None]:
        """Ask what it will cost, in US dollars; None when the provider does not say."""

    def fields(self, model_name: str) -> Steps[frozenset[str] | None]:
        """The parameters that the model takes, by the schema that the provider publishes; None when there is none."""

    def history(self, model_name: str, since: float) -> Steps[list[Candidate] | None]:
        """Jobs that were submitted since then; None where the provider keeps no list."""


def nothing(value: T) -> Steps[T]:
    """A conversation without a word."""
    return value
    yield  # makes it a generator


def clip_url(found: Any) -> str:
    """The link of a finished clip, in any of the forms it comes in: a text, an object with `url`, a list of them."""
    if isinstance(found, list):
        return clip_url(found[0]) if found else ""
    if isinstance(found, dict):
        return clip_url(found.get("url") or found.get("video"))
    return found if isinstance(found, str) else ""


def split_loras(plan: Plan, name: str) -> list[dict[str, Any]]:
    """The LoRAs of one list, as {path, scale}; `name` is BOTH, HIGH or LOW."""
    return [{"path": link, "scale": scale} for link, scale, expert in plan.loras if expert == name]


def seconds_of(stamp: Any) -> float:
    """An ISO 8601 time in UTC, with any number of digits of the second, in seconds since 1970; 0 for none."""
    text = stamp if isinstance(stamp, str) else ""
    whole, _, fraction = text.removesuffix("Z").partition("+")[0].partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return 0.0


def speaks_of(text: str, *words: str) -> bool:
    """Whether a provider's sentence holds one of the words."""
    return any(word in text.lower() for word in words)
