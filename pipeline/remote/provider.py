"""The interface of a provider: it translates a Plan into HTTP requests and replies into job states, and does no I/O.

A call that takes several requests is a generator (a RequestFlow): it yields a Request, is sent the Reply, and returns
what it found. A provider is one file in providers/ with one subclass of Provider; nothing else names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ..request import BOTH, HIGH, LOW
from . import ui_names
from .api import Reply, Request
from .errors import ErrorKind, RemoteError
from .job import JobState
from .json_parts import word_part
from .model import RemoteModel
from .plan import Plan
from .signatures import SignatureScheme

T = TypeVar("T")
RequestFlow = Generator[Request, Reply, T]

SENTENCES = {
    ErrorKind.AUTH: ("{title} rejected the {key_name}", f"Check it in {ui_names.KEYS}."),
    ErrorKind.QUOTA: ("{title} refused: insufficient balance", "Change the provider, or top up your balance there."),
    ErrorKind.VALIDATION: ("{title} rejected the request", "Change the inputs, or choose another model."),
    ErrorKind.POLICY: ("{title} refused: the request breaks its content rules", "Change the prompt or the picture."),
    ErrorKind.RATE_LIMIT: ("{title} refused: too many requests from this account", "Run again in a minute."),
    ErrorKind.TRANSIENT: ("{title} returned a server error", "Run again later."),
    ErrorKind.LOST: ("{title} has no such job or model", "Choose another model, or run again."),
    ErrorKind.PROVIDER_FAILED: ("{title} could not make the clip", "Run again, or choose another model."),
}
"""Error kind -> what a user reads of it, before the status and the provider's own words, and what to do after them."""


@dataclass(frozen=True)
class JobStatus:
    """The answer to one poll of a job."""

    state: JobState
    """QUEUED, RUNNING, DOWNLOADING once the clip is finished, FAILED, CANCELED or LOST."""
    url: str = ""
    """Link of the finished clip."""
    queue_position: int | None = None
    """0 is next; None when the provider does not say."""
    price: float | None = None
    """US dollars billed, where the provider says so."""
    error_kind: ErrorKind = ErrorKind.PROVIDER_FAILED
    message: str = ""
    """The provider's reason for a failure, or a status word that is not known here."""
    unbilled: bool = True
    """Whether the provider charges nothing for a job that ended as FAILED or CANCELED."""
    warnings: tuple[str, ...] = ()
    """The provider's sentences on what of the request it changed, with a finished clip."""


@dataclass(frozen=True)
class HistoryEntry:
    """A job in the provider's own list."""

    remote_id: str
    model: str
    created: float
    """Seconds since 1970."""
    image_url: str | None = None
    """Link of the picture it was given; None where the list has none."""
    seed: int | None = None
    """None where the list has none."""


class Provider(ABC):
    """A hosted API that makes clips. The defaults are for a provider that lacks the call."""

    name: str
    """In files, links and JSON; never changed once released."""
    title: str
    """Shown to users."""
    variables: tuple[str, ...]
    """Environment variables that hold the key; the first one set counts."""
    key_name: str = "API key"
    """The provider's own word for it."""
    keys_page: str
    """Page where a user creates a key."""
    scheme: str = "Bearer"
    """Scheme of the Authorization header."""
    origins: tuple[str, ...]
    """The only origins (https://host) that the key is sent to."""
    models: tuple[RemoteModel, ...]
    """The first one is the default: it takes LoRAs and is open to every account."""
    concurrent: int
    """Jobs that a new account may have under way at once; further ones wait here."""
    work_seconds: float = 1800.0
    """Seconds after which a job is no longer waited for, those in the provider's queue not counted."""
    grace_seconds: float = 0.0
    """Seconds for which the status call may not know a job that was just accepted."""
    bill_after: tuple[float, ...] = ()
    """Seconds after the end of a job at which its bill is read; () where the bill comes with the end, or never."""
    history_delay: float = 0.0
    """Seconds after which the provider's list of jobs, where it has one, is complete."""
    webhook: SignatureScheme | None = None
    """How its webhooks are signed; None where none are asked for."""
    own_server: bool = False
    """Whether it is a server of the user's own, at the address that the settings name for a profile: see `at`."""
    idempotent: bool = False
    """Whether a submit that is repeated with the same Idempotency-Key makes one job
    (draft-ietf-httpapi-idempotency-key-header)."""

    def at(self, address: str) -> Provider:
        """Return the provider as it is at the address of an own server; itself where it has an address of its own."""
        return self

    def model(self, model_id: str) -> RemoteModel | None:
        """Return the model of an id; None for an unknown one."""
        return next((model for model in self.models if model.id == model_id), None)

    @abstractmethod
    def refusal(self, reply: Reply) -> RemoteError | None:
        """Return the error that a reply states, or None for a good reply (the status of a failed job is one).

        The kind is TRANSIENT or RATE_LIMIT when the same request may succeed later.
        """

    @abstractmethod
    def upload(self, picture: bytes, content_type: str) -> RequestFlow[str]:
        """Upload the picture; return its link."""

    def upload_lora(self, file: Path, sha256: str) -> RequestFlow[str]:
        """Upload the file of a LoRA unless it is there; return what stands for it. For models with `lora_files`."""
        raise NotImplementedError

    @abstractmethod
    def body(self, plan: Plan, image_url: str) -> dict[str, Any]:
        """Return the parameters of the paid request."""

    @abstractmethod
    def submit(self, plan: Plan, body: dict[str, Any], webhook: str) -> Request:
        """Return the paid request; webhook: https link to call when the job ends, "" for none."""

    @abstractmethod
    def accepted(self, reply: Reply) -> str:
        """Return the job's id from the reply to the paid request. Raises RemoteError when there is none."""

    @abstractmethod
    def poll(self, model_name: str, remote_id: str) -> RequestFlow[JobStatus]:
        """Return the status of a job."""

    def cancel(self, model_name: str, remote_id: str) -> Request | None:
        """Return the request that cancels a job; None where the provider has no such call."""
        return None

    def price(self, plan: Plan, body: dict[str, Any]) -> RequestFlow[float | None]:
        """Return the price in US dollars by the provider's own pricing call; None when there is none."""
        return no_requests(None)

    @abstractmethod
    def fields(self, model_name: str) -> RequestFlow[frozenset[str] | None]:
        """Return the names of the model's parameters by its published schema; None when there is none."""

    def models_there(self) -> RequestFlow[tuple[str, ...]]:
        """Return the names of the models that an own server has, its default first."""
        return no_requests(())

    def history(self, model_name: str, since: float) -> RequestFlow[list[HistoryEntry] | None]:
        """Return the jobs submitted since a time (seconds since 1970); None where the provider keeps no list."""
        return no_requests(None)

    def error(self, kind: ErrorKind, reply: Reply, message: str = "", *, status: int | None = None,
              sentence: str = "") -> RemoteError:
        """Return an error of this provider: the sentence of its kind, the status, and the provider's own message.

        status: where it is not the reply's own. sentence: in place of the one of the kind.
        """
        text, advice = SENTENCES[kind]
        text = sentence or text.format(title=self.title, key_name=self.key_name)
        words = f" {message.rstrip('. ')}." if message.strip(". ") else ""
        return RemoteError(kind, f"{text} ({status or reply.status}).{words} {advice}", retry_after=reply.retry_after())

    def text(self, reply: Reply, *path: str) -> str:
        """Return a text that a reply must hold. Raises RemoteError (TRANSIENT) when it is missing or empty."""
        found = word_part(reply.json(), *path)
        if not found:
            raise self.error(ErrorKind.TRANSIENT, reply, f"The reply has no {path[-1]!r}, which it always has",
                             sentence=f"{self.title} answered unexpectedly")
        return found

    def fields_gone(self, model: str, names: Sequence[str]) -> RemoteError:
        """Return the error for parameters that the provider's schema of a model does not have any more."""
        return RemoteError(ErrorKind.VALIDATION, f"{self.title} has changed {model}: it no longer takes "
                           f"{', '.join(names)}. Update this pack, or choose another model. Nothing was bought.")

    def model_gone(self, model: str) -> RemoteError:
        """Return the error for a model that the provider has taken off its list."""
        return RemoteError(ErrorKind.VALIDATION, f"{self.title} no longer offers {model}. Choose another model. "
                           "Nothing was bought.")


def no_requests(value: T) -> RequestFlow[T]:
    """Return a value in a flow that makes no request."""
    return value
    yield  # makes it a generator


def clip_url(found: Any) -> str:
    """Return the link of a finished clip from any of its forms (text, object with `url` or `video`, list); else ""."""
    if isinstance(found, list):
        return clip_url(found[0]) if found else ""
    if isinstance(found, dict):
        return clip_url(found.get("url") or found.get("video"))
    return found if isinstance(found, str) else ""


def lora_lists(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Return the LoRAs as lists of {"path", "scale"}, without the empty ones.

    The fields are `loras` (for both experts), `high_noise_loras` and `low_noise_loras`. Where the model has no field
    for both, such a LoRA is in each of the others.
    """
    both = plan.model.loras_for_both
    fields = {"loras": (BOTH,) if both else (), "high_noise_loras": (HIGH,) if both else (HIGH, BOTH),
              "low_noise_loras": (LOW,) if both else (LOW, BOTH)}
    lists = {name: [{"path": link, "scale": scale} for link, scale, chosen in plan.loras if chosen in experts]
             for name, experts in fields.items()}
    return {name: loras for name, loras in lists.items() if loras}


def word_of(value: Any, *path: str | int) -> str:
    """Return a status word at a path, in small letters; "" when there is none."""
    return word_part(value, *path).strip().lower()


def seconds_of(stamp: Any) -> float:
    """Return an ISO 8601 time in UTC, with any number of decimals, as seconds since 1970; 0 for anything else."""
    text = stamp if isinstance(stamp, str) else ""
    whole, _, fraction = text.removesuffix("Z").partition("+")[0].partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return 0.0


def contains_any(text: str, *words: str) -> bool:
    """Return whether a text contains one of the words (given in lower case), in any case."""
    return any(word in text.lower() for word in words)
