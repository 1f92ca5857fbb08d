"""Resume Remote Clip: a job of the ledger, by its id."""

from __future__ import annotations

import asyncio

from comfy_api.latest import io

from .shown_clip import shown_clip
from .sockets import CATEGORY

RESUME, GIVE_UP = ACTIONS = ("resume", "give up")
IMAGES = 1


class ResumeRemoteClip(io.ComfyNode):
    """Fetches a clip that was bought before, or waits for it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22ResumeRemoteClip",
            display_name="Resume Remote Clip (Wan 2.2)",
            category=CATEGORY,
            description="Takes up a remote job by its id: waits for it, or fetches its clip again. Nothing is bought.",
            search_aliases=["job id", "recover", "fetch result"],
            inputs=[
                io.String.Input("job", default="", tooltip="The job's id as the remote node showed it, its first 8 "
                                                           "letters at least, or the provider's own id."),
                io.String.Input("remote_id", default="", optional=True, advanced=True,
                                tooltip="For a job of which it is not known whether it was taken: the id that you "
                                        "found for it on the provider's site."),
                io.Combo.Input("action", options=list(ACTIONS), default=RESUME, optional=True, advanced=True,
                               tooltip="give up: note that the job is not wanted any more, so that the same request "
                                       "can be bought anew. What was bought stays billed."),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The finished clip."),
                     io.Image.Output(display_name="images", tooltip="Its frames; decoded only when something takes "
                                                                    "them."),
                     io.String.Output(display_name="report", tooltip="JSON, as from Remote Image to Video.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, job: str | None = None) -> bool | str:
        if job is not None and not job.strip():
            return "job is empty. Give the id that the remote node showed."
        return True

    @classmethod
    def fingerprint_inputs(cls, **given: object) -> bool:
        """See RemoteImageToVideo."""
        from ..pipeline.host.runs import is_linked

        return is_linked(IMAGES)

    @classmethod
    async def execute(cls, job: str, remote_id: str = "", action: str = RESUME) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, say
        from ..pipeline.host.remote import remote_desk
        from ..pipeline.host.runs import is_linked
        from ..pipeline.host.video import frames_of, video_from
        from ..pipeline.remote.clip import give_up, resumed_clip
        from ..pipeline.remote.ledger import Limits
        from ..pipeline.video.probe import probe

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            desk = remote_desk(node_id, Limits())
            if action == GIVE_UP:
                told = give_up(job, desk)
                say(node_id, told)
                return io.NodeOutput(None, None, told, block_execution=told)
            path, report = await resumed_clip(job, remote_id.strip(), desk)
            video = video_from(path)
            images = await asyncio.to_thread(frames_of, video) if is_linked(IMAGES) else None
            shown = await asyncio.to_thread(lambda: shown_clip(path, probe(path)))
            return io.NodeOutput(video, images, report, ui=shown)
