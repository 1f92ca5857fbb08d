"""Predictions on their way: into ComfyUI's queue, watched there, ended once. One per ComfyUI.

Before a prediction is answered it is in the table; only then it goes into the queue. Its clip has a folder of its own,
named by its id, in which files appear whole or not at all. So after a crash the table says what is to be made, and the
folder whether it was made already.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from filelock import FileLock, Timeout

from ..download.picture import fetch_picture
from ..graph.run import ERROR, INTERRUPTED, RunEnd
from ..http.errors import redact_links
from ..notify.outbox import add
from ..remote.settings import read_settings as read_remote_settings
from .callbacks import callback_message, open_outbox, wake_callbacks
from .errors import ApiError
from .keys import ApiKeys
from .models import HasFile, Model, find_model
from .order import Order
from .predictions import Predictions, StoredPrediction, ended
from .progress import StepClock
from .recipe import fill_in
from .runs import Folders, QueueView, RunQueue
from .settings import ApiSettings, read_settings
from .status import CANCELLED, COMPLETED, FAILED, IMAGE_FAULT, QUEUED, REMOVED, RUN_FAULT, RUNNING
from .upload_names import UPLOAD_PREFIX
from .uploads import PICTURE, PICTURES, Uploads

OUTPUTS = "wan22/api"
"""Folder in ComfyUI's output folder."""
LOOK = 0.2
"""Seconds between two looks at ComfyUI's queue."""
SWEEP = 3600.0
"""Seconds between two searches for what is kept no longer."""
FETCHES = 4
"""Pictures of a key that are fetched at the same time: servers that do not answer hold up no other key's."""
MOST_STARTS = 3
"""Runs of a prediction that a killed ComfyUI may lose: one that kills it must not do so for ever."""
OWN_ERRORS = ("RequestError", "CheckpointError", "PickleError", "DownloadError")
"""Exceptions whose sentences are for users; of others only the class is told."""
UNSAID = "The server could not make the clip ({}). Its log says more."
log = logging.getLogger("wan22")


@dataclass
class Run:
    """A prediction that this process has to carry out."""

    number: float
    """Its place in ComfyUI's queue."""
    is_put: bool = False
    """It is, or was, in ComfyUI's queue."""
    has_begun: bool = False
    """It was seen at work."""
    steps: StepClock = field(default_factory=StepClock)
    end: Callable[[], None] | None = None
    """Records its end, where that failed; None while it has not ended."""
    uploads: frozenset[str] = frozenset()
    """Names of the pictures that were fetched for it."""


class Service:
    """The API's work beside its routes. Methods may be called from any thread but that of ComfyUI's event loop."""

    def __init__(self, folders: Folders, queue: RunQueue, has_file: HasFile, clock: Callable[[], float] = time.time,
                 ) -> None:
        """has_file: see models.py. clock: seconds since 1970."""
        self.folders, self.queue, self.has_file, self.clock = folders, queue, has_file, clock
        self.predictions = Predictions(folders.own)
        self.uploads = Uploads(folders.own, folders.inputs, folders.loras, clock)
        self.keys = ApiKeys(folders.own)
        self.runs: dict[str, Run] = {}
        self._lock, self._news = threading.RLock(), threading.Condition()
        self._fetches: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(FETCHES))
        (folders.own / "locks").mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(folders.own / "locks" / "api.lock", thread_local=False)

    @cached_property
    def link_secret(self) -> bytes:
        """What links of outputs are signed with."""
        return self.keys.link_secret()

    def settings(self) -> ApiSettings:
        """Return the settings as they stand. Raises ValueError."""
        return read_settings(self.folders.own)

    # ---- start ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what an earlier ComfyUI left, and begin to watch; do nothing when that was done.

        Raises ApiError (unavailable) when a second ComfyUI serves the API with this folder.
        """
        with self._lock:
            if self._alive.is_locked:
                return
            try:
                self._alive.acquire(timeout=0)
            except Timeout:
                raise ApiError("unavailable", "A second ComfyUI serves the API with the same user folder.",
                               headers={"Retry-After": "60"}) from None
            try:
                self.take_up_all()
            except BaseException:
                self._alive.release()
                raise
        threading.Thread(target=self._watch, name="wan22-api", daemon=True).start()

    def take_up_all(self) -> None:
        """Bring what an earlier ComfyUI left to its end, or into the queue again, in its old order."""
        for one in self.predictions.open():
            if one.id not in self.runs:
                self._take_up(one)

    def _take_up(self, one: StoredPrediction) -> None:
        if file := self._clip_of(one.id):
            self._end(one, COMPLETED, file=file)
        elif one.cancelling:
            self._end(one, CANCELLED)
        elif one.status == RUNNING and (starts := self.predictions.starts(one.id)) >= MOST_STARTS:
            self._end(one, FAILED, fault=RUN_FAULT, error=f"The server ended {starts} times while it made this clip.")
        else:
            shutil.rmtree(self.output_folder(one.id), ignore_errors=True)  # of a clip that was begun
            self.predictions.start_over(one.id)
            self._begin(replace(one, status=QUEUED, started=None))

    # ---- a prediction --------------------------------------------------------------------------------------------

    def submit(self, key: str, order: Order, base: str, idempotency: str | None, digest: str) -> StoredPrediction:
        """Add a prediction and queue it; return it as it stands.

        base: scheme and host for its links. The same Idempotency-Key with the same digest gets the earlier prediction.
        Raises ApiError: idempotency_conflict, queue_full, and invalid_request for an order that cannot be carried out.
        """
        with self._lock:
            if idempotency and (earlier := self.predictions.repeated(key, idempotency)):
                if earlier.digest != digest:
                    raise ApiError("idempotency_conflict", "This Idempotency-Key was used with another request. Use a "
                                                           "new one for each clip.")
                return earlier
            most = int(self.settings().queue)
            if self.predictions.count_open(key) >= most:
                raise ApiError("queue_full", f"{most} of your clips wait or run, which is the most. Wait for one to "
                                             "end.", headers={"Retry-After": "30"})
            one = StoredPrediction(str(uuid.uuid4()), key, order, base, self.clock(), idempotency=idempotency,
                                   digest=digest, warnings=self.model(order.model).warning(order.clip.resolution))
            checked = None
            if order.has_pictures:
                try:
                    checked = self._graph(one, order.pictures)
                except ValueError as error:
                    raise ApiError("invalid_request", self._without_folders(str(error))) from None
            self.predictions.add(one)
            self._begin(one, checked)
        with self._news:
            self._news.notify_all()
        return one

    def cancel(self, one: StoredPrediction) -> None:
        """Cancel a prediction that waits or runs; one that has ended stays as it is."""
        with self._lock:
            self.predictions.set_cancelling(one.id)
            run = self.runs.get(one.id)
            self.queue.stop(one.id)
            if run is not None and one.id not in self.queue.view().running:
                self._see_gone(one.id, run)

    def delete(self, one: StoredPrediction) -> None:
        """Delete a prediction that has ended: its clip and its row."""
        shutil.rmtree(self.output_folder(one.id), ignore_errors=True)
        self.predictions.delete(one.id)

    def output_folder(self, prediction_id: str) -> Path:
        """Return the folder of a prediction's clip."""
        return self.folders.outputs / OUTPUTS / prediction_id

    def model(self, name: str) -> Model:
        """Return the model of a name, the default for "". Raises ValueError."""
        return find_model(self.folders.own, self.has_file, self.settings().model, name)

    # ---- into the queue ------------------------------------------------------------------------------------------

    def _begin(self, one: StoredPrediction, checked: tuple[dict, list[str]] | None = None) -> None:
        """Give a prediction its place in the queue, and put it there: now, or when its pictures are here.

        checked: its graph and the graph's outputs, when they were made before.
        """
        run = self.runs[one.id] = Run(self.queue.next_number())
        if one.order.has_pictures:
            self._put(one, run, lambda: checked or self._graph(one, one.order.pictures))
        else:
            threading.Thread(target=self._fetch, args=(one, run, self._fetches[one.key]), name="wan22-api-picture",
                             daemon=True).start()

    def _fetch(self, one: StoredPrediction, run: Run, slots: threading.Semaphore) -> None:
        """Fetch the pictures of a prediction, then put it into the queue. slots: of its key."""
        uploads, name = dict(one.order.pictures), ""
        try:
            for name, picture in one.order.pictures.items():
                if not picture.startswith(UPLOAD_PREFIX):
                    with slots:  # without the owner's tokens: a stranger's link must not open what they open
                        data = fetch_picture(picture, stop=lambda: self._stop_fetching(one.id))
                    uploads[name] = self.uploads.add_picture(one.key, data).name
                    run.uploads |= {uploads[name]}
        except _CancelledError:
            return
        except (ApiError, ValueError) as error:
            self._end_unput(one, run, IMAGE_FAULT, f"{name}: {error}")
        except Exception as error:
            log.exception("Wan 2.2: the picture of a prediction was not fetched")
            self._end_unput(one, run, IMAGE_FAULT, UNSAID.format(type(error).__name__))
        else:
            self._put(one, run, lambda: self._graph(one, uploads))

    def _stop_fetching(self, prediction_id: str) -> None:
        if prediction_id not in self.runs:
            raise _CancelledError

    def _put(self, one: StoredPrediction, run: Run, make: Callable[[], tuple[dict, list[str]]]) -> None:
        """Put a prediction's graph into ComfyUI's queue; end the prediction when that cannot run."""
        try:
            graph, outputs = make()
        except ValueError as error:
            self._end_unput(one, run, RUN_FAULT, str(error))
            return
        except Exception as error:
            log.exception("Wan 2.2: a prediction could not be queued")
            self._end_unput(one, run, RUN_FAULT, UNSAID.format(type(error).__name__))
            return
        with self._lock:
            if self.runs.get(one.id) is run:  # it was not cancelled meanwhile
                self.queue.put(one.id, graph, outputs, run.number)
                run.is_put = True

    def _end_unput(self, one: StoredPrediction, run: Run, fault: str, error: str) -> None:
        """End a prediction that came into no queue. What keeps its end from the disk is logged, and look() tries
        again."""
        end = partial(self._end, one, FAILED, fault=fault, error=error)
        try:
            end()
        except Exception as why:
            log.warning("Wan 2.2: the end of a prediction is not recorded yet: %s", why)
            run.end = end

    def _graph(self, one: StoredPrediction, pictures: Mapping[str, str]) -> tuple[dict, list[str]]:
        """Return a prediction's graph, checked by ComfyUI, and its output nodes. Raises ValueError.

        pictures: field -> the upload that its picture is.
        """
        uploads = [self.uploads.find(one.key, name.removeprefix(UPLOAD_PREFIX), PICTURE) for name in pictures.values()]
        if None in uploads:
            raise ValueError("The picture is not here any more. Upload it again.")
        for used in (*pictures.values(), *one.order.sources):
            self.uploads.touch(one.key, used.removeprefix(UPLOAD_PREFIX))
        clip, model = one.order.clip, self.model(one.order.model)
        graph = fill_in(model.graph, clip, model.size(clip.resolution, uploads[0].is_tall),
                        [f"{PICTURES}/{upload.file}" for upload in uploads], f"{OUTPUTS}/{one.id}/clip")
        return graph, self.queue.check(one.id, graph)

    # ---- watched there -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        swept = 0.0
        while True:
            try:
                self.look()
                if self.clock() - swept > SWEEP:
                    swept = self.clock()
                    self.sweep()
            except Exception as error:  # a full disk, for one; whatever it is, it is tried again
                log.warning("Wan 2.2: the API waits: %s", error)
                time.sleep(5)
            with self._news:
                self._news.wait(LOOK if self.runs else 60.0)

    def look(self) -> None:
        """See what has become of all runs. What one of them raises does not hold up the others."""
        fault = None
        with self._lock:
            view = self.queue.view()
            still = view.running | set(view.waiting)
            for name, run in [*self.runs.items()]:
                try:
                    if run.end is not None:
                        run.end()
                    elif name in view.running:
                        self._see_running(name, run, view)
                    elif run.is_put and name not in still:
                        self._see_gone(name, run)
                except Exception as error:
                    fault = error
        if fault is not None:
            raise fault

    def _see_running(self, name: str, run: Run, view: QueueView) -> None:
        run.steps.see(*view.steps)
        if not run.has_begun:
            run.has_begun = True
            self.predictions.begin(name, self.clock())

    def _see_gone(self, name: str, run: Run) -> None:
        """End a prediction whose run is in the queue no more, or never was."""
        one = self.predictions.get(name)
        if one is not None:
            self._end_of_run(one, self.queue.end(name) if run.is_put else None)

    def _end_of_run(self, one: StoredPrediction, end: RunEnd | None) -> None:
        if one.started is None and end is not None and end.began:  # it began and ended between two looks
            one = replace(one, started=end.began)
        if file := self._clip_of(one.id):
            self._end(one, COMPLETED, file=file)
        elif one.cancelling:
            self._end(one, CANCELLED)
        elif end is None or end.message == INTERRUPTED:
            self._end(one, CANCELLED, fault=REMOVED, error="The run was stopped on the server.")
        elif end.message == ERROR:
            name = end.error_type.rpartition(".")[2]
            self._end(one, FAILED, fault=RUN_FAULT, error=end.error if name in OWN_ERRORS else UNSAID.format(name))
        else:
            self._end(one, FAILED, fault=RUN_FAULT, error="The run ended without a clip.")

    def _without_folders(self, text: str) -> str:
        """Return a text for a stranger: without this machine's folders and without what may be secret in links."""
        for folder in (self.folders.own, self.folders.inputs, self.folders.outputs, self.folders.loras.parent):
            text = text.replace(str(folder), folder.name)
        return redact_links(text)

    def _clip_of(self, prediction_id: str) -> str:
        """Return the clip of a prediction, below ComfyUI's output folder; "" while there is none."""
        files = sorted(path for path in self.output_folder(prediction_id).glob("[!.]*.mp4"))
        return files[0].relative_to(self.folders.outputs).as_posix() if files else ""

    def _end(self, one: StoredPrediction, status: str, file: str = "", fault: str = "", error: str = "") -> None:
        """Record the end of a prediction, with its callback; and that its run is no more."""
        now = self.clock()
        done = ended(one, status, now, file, fault, self._without_folders(error))
        message = None
        if one.order.callback_url:
            open_outbox(self.folders.own)
            message = callback_message(done, self.link_secret, now)
        if self.predictions.end(done, lambda base: message and add(base, message, now)) and message:
            wake_callbacks(self.folders.own)
        self.runs.pop(one.id, None)

    # ---- kept no longer ------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Delete the predictions and uploads that are older than the settings say."""
        before = self.clock() - self.settings().retention_days * 24 * 3600
        for one in self.predictions.ended_before(before):
            self.delete(one)
        used = [name for one in self.predictions.open() for name in one.order.sources]
        used += [name for run in [*self.runs.values()] for name in run.uploads]
        self.uploads.sweep(before, {name.removeprefix(UPLOAD_PREFIX).lower() for name in used})

    def public_base(self) -> str:
        """Return the base by which the outside reaches this server; "" when the settings name none."""
        return read_remote_settings(self.folders.own).public_url


class _CancelledError(Exception):
    """The prediction whose picture is being fetched was cancelled."""

