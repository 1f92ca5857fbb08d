"""The nodes as the canvas shows them: schemas and tooltips, with one call into the pipeline each."""

from .attention import Attention
from .bridge import BridgeSampler
from .camera_path import CameraPath
from .check_clip import CheckClip
from .clip_grid import ClipGrid
from .decode import Decode
from .decode_to_mp4 import DecodeToMP4
from .encode_prompt import EncodePrompt
from .extend_clip import ExtendClip
from .first_frame import FirstFrameNode
from .image_from_url import ImageFromURL
from .join_clips import JoinClips
from .latent_file import LoadLatent, SaveLatent
from .load import Load
from .long_clip import LongClipNode
from .lora import LoraNode
from .move_object import MoveObject
from .notify import Notify
from .remote_fallback import RemoteFallback
from .remote_image_to_video import RemoteImageToVideo
from .resume_remote_clip import ResumeRemoteClip
from .retry import Retry
from .sampler import Sampler
from .save_mp4 import SaveMP4
from .segment import SegmentNode

NODES = [Load, Attention, LoraNode, EncodePrompt, ImageFromURL, FirstFrameNode, CameraPath, MoveObject, Sampler,
         BridgeSampler, SaveLatent, LoadLatent, Decode, SaveMP4, DecodeToMP4, ExtendClip, SegmentNode, LongClipNode,
         JoinClips, CheckClip, Retry, ClipGrid, RemoteImageToVideo, RemoteFallback, ResumeRemoteClip, Notify]
