"""Notify: tells another server that a clip is done, or that it is not coming."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE
from .remote_inputs import profile_fault
from .sockets import CATEGORY


class Notify(io.ComfyNode):
    """POSTs a small signed JSON. Nothing in the graph waits for it.

    A node behind one that fails is not run. So that failures are told too, a run is noted when ComfyUI asks for this
    node's fingerprint, which is before any node of the graph works: see pipeline/remote/run_watch.py.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Notify",
            display_name="Notify (Wan 2.2)",
            category=CATEGORY,
            description="Sends a small signed JSON to your server when a clip is done or has failed: what was asked, "
                        "the file, seconds and price. It is tried again for a day, over restarts too, and the graph "
                        "does not wait for it. Works for local and remote clips.",
            search_aliases=["webhook", "callback", "callback_url", "http post"],
            inputs=[
                io.Video.Input("video", optional=True, tooltip="The clip to tell of, from Save MP4 or a remote node. "
                                                               "Its place in ComfyUI's output folder is told, not its "
                                                               "content."),
                io.String.Input("report", optional=True, force_input=True,
                                tooltip="Report of a remote node, with the price; or any text to send along."),
                io.String.Input("callback_url", default="",
                                tooltip="https link of your server, open to the internet. Saved with the workflow, so "
                                        "no token belongs in it. Write it here: when another node brings it, failures "
                                        "are not told."),
                io.Boolean.Input("signed", default=True, optional=True, advanced=True,
                                 tooltip="Sign as Standard Webhooks do, with the secret in WAN22_CALLBACK_SECRET or "
                                         "the pack's own store, so that your server can tell who is calling. Without "
                                         "a secret the run is refused; off sends without a signature."),
                io.String.Input("profile", default=DEFAULT_PROFILE, optional=True, advanced=True,
                                tooltip="Which of your saved secrets to sign with. The secret itself is never written "
                                        "here."),
            ],
            outputs=[],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, callback_url: str | None = None, signed: bool | None = True,
                        profile: str | None = DEFAULT_PROFILE) -> bool | str:
        if fault := profile_fault(profile):
            return fault
        import folder_paths

        from ..pipeline.notify.notice import check_notice

        try:
            check_notice(Path(folder_paths.get_system_user_directory("wan22")), callback_url, signed, profile)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, callback_url: str | None = None, signed: bool | None = True,
                           profile: str | None = DEFAULT_PROFILE, **given: Any) -> str:
        """Different each time: every run is told of, that of a clip which was there already too."""
        from ..pipeline.host.files import system_folder
        from ..pipeline.host.runs import graph_run, run_error, run_is_over
        from ..pipeline.notify.notice import tell_if_it_fails
        from ..pipeline.notify.outbox import Addressee

        if None not in (callback_url, signed, profile):
            tell_if_it_fails(system_folder(), graph_run(),
                             Addressee(callback_url, profile, signed), run_is_over, run_error)
        return uuid.uuid4().hex

    @classmethod
    def execute(cls, callback_url: str, video: Any = None, report: str = "", signed: bool = True,
                profile: str = DEFAULT_PROFILE) -> io.NodeOutput:
        from ..pipeline.host.files import system_folder
        from ..pipeline.host.node import errors_on_node, say
        from ..pipeline.host.runs import graph_run
        from ..pipeline.host.video import video_facts
        from ..pipeline.notify.notice import tell_it_is_done
        from ..pipeline.notify.outbox import Addressee

        with errors_on_node(cls.hidden.unique_id):
            clip = None if video is None else video_facts(video)
            told = tell_it_is_done(system_folder(), graph_run(),
                                   Addressee(callback_url, profile, signed), clip, report)
            say(cls.hidden.unique_id, told)
            return io.NodeOutput()
