"""Tell a prediction's callback_url of its end: as Notify does, signed, with retries, from the same outbox."""

from __future__ import annotations

from pathlib import Path

from ..notify.event import DONE, FAILED, event_body, new_id
from ..notify.notice import check_callback
from ..notify.notifier import notifier
from ..notify.outbox import Message, Recipient
from .answers import prediction
from .errors import field_error
from .keys import callback_profile
from .predictions import StoredPrediction
from .status import COMPLETED


def check_callback_url(folder: Path, key: str, url: str) -> None:
    """Raise ApiError (invalid_request) for a link that may not be called, when nothing may leave this machine, and
    when the key has no secret to sign with. folder: the pack's own."""
    try:
        check_callback(folder, url, True, callback_profile(key))
    except ValueError as error:
        raise field_error({"callback_url": str(error)}) from None


def callback_message(one: StoredPrediction, link_secret: bytes, now: float) -> Message:
    """Return the message of a prediction's end; its data is the prediction as GET answers it."""
    name = new_id()
    kind = DONE if one.status == COMPLETED else FAILED
    return Message(name, Recipient(one.order.callback_url, callback_profile(one.key), True),
                   event_body(name, kind, now, prediction(one, link_secret, now)))


def open_outbox(folder: Path) -> None:
    """Make the outbox, where a message is put in the transaction of its prediction's end, if it is missing."""
    notifier(folder)


def wake_callbacks(folder: Path) -> None:
    """Have the outbox deliver what was put into it."""
    notifier(folder).wake_workers()
