"""AutoencoderKLWan as a stream of frames, behind the two calls that ComfyUI's VAE nodes make.

The VAE is causal in time: frame 0 is one latent, every later latent is 4 frames, and each convolution carries its
last two inputs over to the next piece. Pieces so give exactly what the whole clip at once would (diffusers,
AutoencoderKLWan._encode and _decode), in memory that the piece bounds and not the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from ..request import RequestError

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

    from ..host import Resident

FRAMES_A_LATENT = 4
PIXELS_A_LATENT = 8
PIXELS_A_PIECE = 1 << 18
"""Pixels x frames of a piece: small frames go several at once, for speed; from 256x256 on, 4 at once."""
TILE, TILE_OVERLAP = 256, 64
"""Pixels a side of a tile, and of its overlap, when the memory runs out: 0.93 GB at base_dim 96 and 2 bytes."""
NO_ROOM = (f"There is too little memory on the device to {{}} even {TILE}x{TILE} pixels at a time. Close what else "
           "uses the GPU.")
ENCODE_BYTES_A_PIXEL, DECODE_BYTES_A_PIXEL = 8000, 10200
"""Peak activations a pixel of the frame, at base_dim 96 and 2 bytes a number: 3.2 and 4.05 GB at 832x480."""


class WanVAE:
    """The VAE of a VAE socket: `encode` takes an IMAGE, `decode` the samples of a LATENT."""

    latent_channels = 16
    latent_dim = 3

    def __init__(self, resident: Resident, dtype: torch.dtype) -> None:
        self.resident, self.dtype = resident, dtype

    @property
    def patcher(self) -> Any:
        """What ComfyUI's cache weighs and its memory manager evicts."""
        return getattr(self.resident, "patcher", None)

    def spacial_compression_encode(self) -> int:
        """Pixels a latent, under the name core's nodes ask for."""
        return PIXELS_A_LATENT

    spacial_compression_decode = spacial_compression_encode

    def temporal_compression_decode(self) -> int:
        """Frames a latent, under the name core's nodes ask for."""
        return FRAMES_A_LATENT

    def _ready(self, height: int, width: int, bytes_a_pixel: int) -> tuple[AutoencoderKLWan, torch.device]:
        vae = self.resident.module
        factor = vae.config.base_dim / 96 * self.dtype.itemsize / 2
        return vae, self.resident.bring(int(height * width * bytes_a_pixel * factor))

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """IMAGE (F, H, W, 3), 0..1, as one clip -> raw latents (1, 16, (F - 1) // 4 + 1, H / 8, W / 8), float32, CPU.

        Frames beyond the last 4n + 1 and pixels beyond the last multiple of 8 are left out, as ComfyUI's VAE does.
        When the device's memory runs out, the clip is encoded in tiles. Raises RequestError when even a tile does not
        fit.
        """
        height, width = (side // PIXELS_A_LATENT * PIXELS_A_LATENT for side in pixels.shape[1:3])
        frames = (pixels.shape[0] - 1) // FRAMES_A_LATENT * FRAMES_A_LATENT + 1
        pixels = pixels[:frames, :height, :width, :3]
        try:
            return self._encoded(pixels, on_piece)
        except torch.OutOfMemoryError:
            pass  # what the failed piece held is released only once its exception has gone
        self.resident.make_room(0)
        try:
            return self._encoded_in_tiles(pixels)
        except torch.OutOfMemoryError as error:
            raise RequestError(NO_ROOM.format("encode")) from error

    def _encoded(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None]) -> torch.Tensor:
        frames, height, width, _ = pixels.shape
        latents = (frames - 1) // FRAMES_A_LATENT + 1
        vae, device = self._ready(height, width, ENCODE_BYTES_A_PIXEL)
        cache: list[Any] = [None] * vae._cached_conv_counts["encoder"]
        pieces = []
        for start, count in _pieces(latents, height * width):
            first = max(0, 1 + (start - 1) * FRAMES_A_LATENT)
            piece = _to_clip(pixels[first : first + (1 if start == 0 else count * FRAMES_A_LATENT)])
            pieces.append(vae.quant_conv(vae.encoder(piece.to(device, self.dtype), feat_cache=cache, feat_idx=[0])))
            on_piece(start + count, latents)
        return self._mean(torch.cat(pieces, 2))

    def _encoded_in_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        """By diffusers' blending of the latents of overlapping tiles."""
        vae, device = self._ready(TILE, TILE, ENCODE_BYTES_A_PIXEL)
        _set_tiles(vae, TILE, TILE, TILE_OVERLAP)
        return self._mean(vae.tiled_encode(_to_clip(pixels).to(device, self.dtype)))

    def _mean(self, moments: torch.Tensor) -> torch.Tensor:
        return moments[:, : self.latent_channels].float().cpu()

    @torch.no_grad()
    def stream(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Raw latents (1, 16, T, h, w) -> IMAGE pieces (f, H, W, 3), 0..1, float32, CPU, in order.

        When the device's memory runs out, the rest comes in one piece, decoded in tiles. Raises RequestError when
        even a tile does not fit.
        """
        done = 0
        try:
            for frames in self._pieces_of(latents):
                done += len(frames)
                yield frames
            return
        except torch.OutOfMemoryError:
            pass  # what the failed piece held is released only once its exception has gone
        self.resident.make_room(0)
        try:
            frames = self._tiled(latents, TILE, TILE, TILE_OVERLAP)
        except torch.OutOfMemoryError as error:
            raise RequestError(NO_ROOM.format("decode")) from error
        yield frames[done:]

    def _pieces_of(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        height, width = (side * PIXELS_A_LATENT for side in latents.shape[-2:])
        vae, device = self._ready(height, width, DECODE_BYTES_A_PIXEL)
        cache: list[Any] = [None] * vae._cached_conv_counts["decoder"]
        for start, count in _pieces(latents.shape[2], height * width):
            z = vae.post_quant_conv(latents[:, :, start : start + count].to(device, self.dtype))
            frames = vae.decoder(z, feat_cache=cache, feat_idx=[0], first_chunk=start == 0)
            yield _to_image(frames[0])

    def _tiled(self, latents: torch.Tensor, height: int, width: int, overlap: int) -> torch.Tensor:
        """Raw latents (1, 16, T, h, w) -> IMAGE of the clip, by diffusers' blending of overlapping tiles, in pixels."""
        vae, device = self._ready(height, width, DECODE_BYTES_A_PIXEL)
        _set_tiles(vae, height, width, overlap)
        return _to_image(vae.tiled_decode(latents.to(device, self.dtype), return_dict=False)[0][0])

    @torch.no_grad()
    def decode_tiled(self, latents: torch.Tensor, tile_x: int, tile_y: int, overlap: int, tile_t: int | None = None,
                     overlap_t: int | None = None) -> torch.Tensor:
        """As `decode`, in overlapping tiles of so many latents, for core's VAE Decode (Tiled).

        Tiles in time are not needed: the decoder is causal and takes a latent at a time.
        """
        sizes = (n * PIXELS_A_LATENT for n in (tile_y, tile_x, overlap))
        height, width, overlap = sizes
        return torch.stack([self._tiled(latent, height, width, overlap) for latent in latents.split(1)])

    def decode(self, latents: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """Raw latents (B, 16, T, h, w) -> IMAGE (B, 4 (T - 1) + 1, 8 h, 8 w, 3), 0..1, float32, CPU."""
        clips = []
        total = latents.shape[0] * (FRAMES_A_LATENT * (latents.shape[2] - 1) + 1)
        done = 0
        for latent in latents.split(1):
            pieces = []
            for piece in self.stream(latent):
                pieces.append(piece)
                done += len(piece)
                on_piece(done, total)
            clips.append(torch.cat(pieces))
        return torch.stack(clips)


def _set_tiles(vae: AutoencoderKLWan, height: int, width: int, overlap: int) -> None:
    """Size and overlap of diffusers' tiles, in pixels."""
    vae.tile_sample_min_height, vae.tile_sample_min_width = height, width
    vae.tile_sample_stride_height, vae.tile_sample_stride_width = height - overlap, width - overlap


def _to_clip(image: torch.Tensor) -> torch.Tensor:
    """IMAGE (F, H, W, 3), 0..1, -> frames (1, 3, F, H, W), -1..1."""
    return image.permute(3, 0, 1, 2)[None] * 2 - 1


def _to_image(frames: torch.Tensor) -> torch.Tensor:
    """Frames (3, F, H, W), -1..1, -> IMAGE (F, H, W, 3), 0..1, float32, CPU."""
    return frames.permute(1, 2, 3, 0).float().add(1).div(2).clamp(0, 1).cpu()


def _pieces(latents: int, pixels: int) -> Iterator[tuple[int, int]]:
    """(first latent, number of latents) of each piece: frame 0 alone, then as many as PIXELS_A_PIECE allows."""
    yield 0, 1
    length = max(1, PIXELS_A_PIECE // (FRAMES_A_LATENT * pixels))
    for start in range(1, latents, length):
        yield start, min(length, latents - start)
