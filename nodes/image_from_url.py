"""Image from URL: a picture by its link, for requests that upload no file."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import CATEGORY


class ImageFromURL(io.ComfyNode):
    """Fetch a picture over https."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22ImageFromURL",
            display_name="Image from URL (Wan 2.2)",
            category=CATEGORY,
            description="Fetches a JPEG, PNG or WebP picture of at most 10 MB and 64 megapixels over https, and "
                        "rotates it upright.",
            search_aliases=["load image from url", "download image", "web image"],
            inputs=[
                io.String.Input("url", default="",
                                tooltip="https link to the picture itself, not to a page that shows it. Links to this "
                                        "machine or its network are refused. Saved with the workflow: put no secret "
                                        "in it."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture as from Load Image, without its "
                                                                   "transparency.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, url: str | None = None) -> bool | str:
        from ..pipeline.download.picture import check_picture_link

        try:
            if url is not None:
                check_picture_link(url)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, url: str) -> io.NodeOutput:
        from ..pipeline.download.picture import fetch_picture
        from ..pipeline.host.files import tokens
        from ..pipeline.host.node import bind_show_text, errors_on_node, stop_if_asked
        from ..pipeline.video.picture import decode_picture

        with errors_on_node(cls.hidden.unique_id):
            data = fetch_picture(url, stop=stop_if_asked, tokens=tokens(), say=bind_show_text(cls.hidden.unique_id))
            return io.NodeOutput(decode_picture(data))
