"""Notify: tell another server that a clip is done, or that it has failed."""

from __future__ import annotations

import uuid
from typing import Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE, profile_fault
from .sockets import CATEGORY


class Notify(io.ComfyNode):
    """POST a small signed JSON. Nothing in the graph waits for it.

    A node behind one that fails is not run. To report failures too, a run is recorded when ComfyUI asks for this node's
    fingerprint, which is before any node of the graph runs: see pipeline/notify/run_watch.py.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22Notify",
            display_name="Notify (Wan 2.2)",
            category=CATEGORY,
            description="POSTs a small signed JSON to your server when a clip is done or has failed: the request, the "
                        "file, seconds and price. Failed deliveries are retried for a day, across restarts, and the "
                        "graph does not wait. Works for local and remote clips.",
            search_aliases=["webhook", "callback", "callback_url", "http post"],
            inputs=[
                io.Video.Input("video", optional=True, tooltip="Clip to report, from Save MP4 or a remote node. Its "
                                                               "path in ComfyUI's output folder is sent, not its "
                                                               "content."),
                io.String.Input("report", optional=True, force_input=True,
                                tooltip="Report of a remote node, with the price; or any text to include."),
                io.String.Input("callback_url", default="",
                                tooltip="https link of your server, reachable from the internet. Saved with the "
                                        "workflow: put no token in it. Type it here: failures are not reported when "
                                        "the link comes from another node."),
                io.Boolean.Input("signed", default=True, optional=True, advanced=True,
                                 tooltip="Sign by the Standard Webhooks scheme, so that your server can verify the "
                                         "sender. Set the secret in Settings > Wan 2.2 or in WAN22_CALLBACK_SECRET; "
                                         "without one the run is refused. Off sends without a signature."),
                io.String.Input("profile", default=DEFAULT_PROFILE, optional=True, advanced=True,
                                tooltip="Profile in Settings > Wan 2.2 whose secret signs the message. Never put the "
                                        "secret itself here."),
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
        from ..pipeline.host.folders import system_folder
        from ..pipeline.notify.notice import check_callback

        try:
            check_callback(system_folder(), callback_url, signed, profile)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, callback_url: str | None = None, signed: bool | None = True,
                           profile: str | None = DEFAULT_PROFILE, **given: Any) -> str:
        """Return another value each time: every run is reported, also when its clip was cached."""
        from ..pipeline.host.folders import system_folder
        from ..pipeline.host.runs import graph_run, run_end, run_is_over, running_node
        from ..pipeline.notify.notice import watch_run
        from ..pipeline.notify.outbox import Recipient

        if None not in (callback_url, signed, profile):
            watch_run(system_folder(), graph_run(), running_node(), Recipient(callback_url, profile, signed),
                      run_is_over, run_end)
        return uuid.uuid4().hex

    @classmethod
    def execute(cls, callback_url: str, video: Any = None, report: str = "", signed: bool = True,
                profile: str = DEFAULT_PROFILE) -> io.NodeOutput:
        from ..pipeline.host.folders import system_folder
        from ..pipeline.host.node import errors_on_node, show_text
        from ..pipeline.host.runs import graph_run, running_node, sent_node
        from ..pipeline.host.video import video_facts
        from ..pipeline.notify.notice import send_callback
        from ..pipeline.notify.outbox import Recipient

        with errors_on_node(cls.hidden.unique_id):
            clip = None if video is None else video_facts(video)
            text = send_callback(system_folder(), graph_run(), sent_node(running_node()),
                                 Recipient(callback_url, profile, signed), clip, report)
            show_text(cls.hidden.unique_id, text)
            return io.NodeOutput()
