"""The nodes as the canvas shows them: schemas and tooltips, with one call into the pipeline each."""

from .attention import Attention
from .bridge import BridgeSampler
from .camera_path import CameraPath
from .decode import Decode
from .decode_to_mp4 import DecodeToMP4
from .encode_prompt import EncodePrompt
from .first_frame import FirstFrameNode
from .image_from_url import ImageFromURL
from .latent_file import LoadLatent, SaveLatent
from .load import Load
from .lora import LoraNode
from .move_object import MoveObject
from .notify import Notify
from .remote_fallback import RemoteFallback
from .remote_image_to_video import RemoteImageToVideo
from .resume_remote_clip import ResumeRemoteClip
from .sampler import Sampler
from .save_mp4 import SaveMP4

NODES = [Load, Attention, LoraNode, EncodePrompt, ImageFromURL, FirstFrameNode, CameraPath, MoveObject, Sampler,
         BridgeSampler, SaveLatent, LoadLatent, Decode, SaveMP4, DecodeToMP4, RemoteImageToVideo, RemoteFallback,
         ResumeRemoteClip, Notify]
