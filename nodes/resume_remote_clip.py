"""Resume Remote Clip: a job of the ledger, by its id."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY

RESUME, GIVE_UP = ACTIONS = ("resume", "give up")
IMAGES = 1


class ResumeRemoteClip(io.ComfyNode):
    """Wait for a clip that was bought before, or download it again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22ResumeRemoteClip",
            display_name="Resume Remote Clip (Wan 2.2)",
            category=CATEGORY,
            description="Resumes a remote job by its id: waits for it, or downloads its clip again. Nothing is bought.",
            search_aliases=["job id", "recover", "fetch result"],
            inputs=[
                io.String.Input("job", default="", tooltip="Id of the job as the remote node showed it, or at least "
                                                           "its first 8 characters; or the provider's own id."),
                io.String.Input("remote_id", default="", optional=True, advanced=True,
                                tooltip="The job's id on the provider's site, for a job of which it is not known "
                                        "whether the provider accepted it."),
                io.Combo.Input("action", options=list(ACTIONS), default=RESUME, optional=True, advanced=True,
                               tooltip="give up: stop tracking the job, so that the same request can be bought again. "
                                       "What was bought stays billed."),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="Finished clip."),
                     io.Image.Output(display_name="images", tooltip="Frames of the clip; decoded only if connected."),
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
        """Return whether the frames are wanted, as RemoteImageToVideo does."""
        from ..pipeline.host.runs import is_linked

        return is_linked(IMAGES)

    @classmethod
    async def execute(cls, job: str, remote_id: str = "", action: str = RESUME) -> io.NodeOutput:
        from ..pipeline.host.node import errors_on_node, show_text
        from ..pipeline.host.remote import remote_context
        from ..pipeline.host.runs import is_linked
        from ..pipeline.host.video import clip_outputs
        from ..pipeline.remote.budget import Limits
        from ..pipeline.remote.clip import give_up, resumed_clip

        node_id = cls.hidden.unique_id
        with errors_on_node(node_id):
            context = remote_context(node_id, Limits())
            if action == GIVE_UP:
                message = give_up(job, context)
                show_text(node_id, message)
                return io.NodeOutput(None, None, message, block_execution=message)
            path, report = await resumed_clip(job, remote_id.strip(), context)
            video, images, preview = await clip_outputs(path, with_frames=is_linked(IMAGES))
            return io.NodeOutput(video, images, report, ui=preview)
