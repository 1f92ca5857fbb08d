"""The Wan 2.1 VAE, which Wan 2.2 A14B uses -> AutoencoderKLWan.

Names in files: those of the official `Wan2.1_VAE.pth`, wan/modules/vae2_1.py of github.com/Wan-Video/Wan2.2, which
Comfy-Org's and Kijai's safetensors keep, or diffusers' own; either may have a prefix (tell.VAE_PREFIXES). The base
width follows from the shapes.


AutoencoderKLWan as a stream of frames, behind the two calls that ComfyUI's VAE nodes make.

The VAE is causal in time: frame 0 is one latent, every later latent is 4 frames, and each convolution carries its
last two inputs over to the next piece. Pieces so give exactly what the whole clip at once would (diffusers,
AutoencoderKLWan._encode and _decode), in memory that the piece bounds and not the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.detect import vae_prefix
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import probe
from ..checkpoint.quantised import dequantise
from ..checkpoint.read import load_exactly, read_weights
from ..request import RequestError
from .host import Host, Resident
from .tiles import Need, blend_weights, choose_layout, layout_of_size
from .vae_decoder import FRAMES_A_LATENT, PIXELS_A_LATENT, decoded, pieces

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

TILE, TILE_OVERLAP = 256, 64
"""Pixels a side of a tile, and of its overlap, when encoding runs out of memory."""
NO_ROOM = (f"There is too little memory on the device to {{}} even {TILE}x{TILE} pixels at a time. Close what else "
           "uses the GPU.")
ENCODE_BYTES_A_PIXEL, DECODE_BYTES_A_PIXEL = 8000, 10200
"""Peak activations a pixel of the frame, at base_dim 96 and 2 bytes a number: 3.2 and 4.05 GB at 832x480."""
CACHE_BYTES_A_PIXEL = 4734
"""What the decoder keeps of them for the next piece: 2,367 numbers, the last two inputs of each convolution."""
SHARES = (0.9, 0.4, 0.0)
"""Shares of the free memory that are tried one after the other; the last leads to the smallest tiles."""


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

    def _bytes(self, height: int, width: int, bytes_a_pixel: int) -> int:
        factor = self.resident.module.config.base_dim / 96 * self.dtype.itemsize / 2
        return int(height * width * bytes_a_pixel * factor)

    def _ready(self, height: int, width: int, bytes_a_pixel: int) -> tuple[AutoencoderKLWan, torch.device]:
        return self.resident.module, self.resident.bring(self._bytes(height, width, bytes_a_pixel))

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """IMAGE (F, H, W, 3), 0..1, as one clip -> raw latents (1, 16, (F - 1) // 4 + 1, H / 8, W / 8), float32, CPU.

        Frames beyond the last 4n + 1 and pixels beyond the last multiple of 8 are left out, as ComfyUI's VAE does.
        When the device's memory runs out, the clip is encoded in tiles. Raises RequestError when even a tile does not
        fit.
        """
        pixels = _whole_latents(pixels)
        try:
            return self._encoded(pixels, on_piece)
        except RuntimeError as error:
            if not self.resident.ran_out(error):
                raise
        # What the failed piece held is released only now that its exception has gone.
        self.resident.make_room(0)
        try:
            return self._encoded_in_tiles(pixels, TILE, TILE, TILE_OVERLAP, on_piece)
        except RuntimeError as error:
            if not self.resident.ran_out(error):
                raise
            raise RequestError(NO_ROOM.format("encode")) from error

    def _encoded(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None]) -> torch.Tensor:
        frames, height, width, _ = pixels.shape
        latents = (frames - 1) // FRAMES_A_LATENT + 1
        vae, device = self._ready(height, width, ENCODE_BYTES_A_PIXEL)
        cache: list[Any] = [None] * vae._cached_conv_counts["encoder"]
        moments = []
        for start, count in pieces(latents, height * width):
            first = max(0, 1 + (start - 1) * FRAMES_A_LATENT)
            piece = _to_clip(pixels[first : first + (1 if start == 0 else count * FRAMES_A_LATENT)])
            moments.append(vae.quant_conv(vae.encoder(piece.to(device, self.dtype), feat_cache=cache, feat_idx=[0])))
            on_piece(start + count, latents)
        return self._mean(torch.cat(moments, 2))

    @torch.no_grad()
    def encode_tiled(self, pixels: torch.Tensor, tile_x: int, tile_y: int, overlap: int, tile_t: int | None = None,
                     overlap_t: int | None = None) -> torch.Tensor:
        """As `encode`, in overlapping tiles of so many pixels, for core's VAE Encode (Tiled).

        Of the overlap at most a quarter of a tile counts, as in core's VAE Decode (Tiled). Tiles in time are not
        needed: the encoder is causal and takes a latent at a time.
        """
        return self._encoded_in_tiles(_whole_latents(pixels), tile_x, tile_y, overlap, lambda done, total: None)

    def _encoded_in_tiles(self, pixels: torch.Tensor, tile_x: int, tile_y: int, overlap: int,
                          on_piece: Callable[[int, int], None]) -> torch.Tensor:
        height, width, tile_height, tile_width, overlap = (
            side // PIXELS_A_LATENT
            for side in (*pixels.shape[1:3], tile_y, tile_x, min(overlap, tile_y // 4, tile_x // 4)))
        layout = layout_of_size(height, width, tile_height, tile_width, overlap)
        whole = torch.zeros(1, self.latent_channels, (pixels.shape[0] - 1) // FRAMES_A_LATENT + 1, height, width)
        tiles = list(layout.tiles())
        for number, tile in enumerate(tiles):
            def on_piece_of_tile(done: int, total: int, number: int = number) -> None:
                on_piece(number * total + done, len(tiles) * total)

            rows, columns = slice(tile.top, tile.top + tile.height), slice(tile.left, tile.left + tile.width)
            seen = pixels[:, _in_pixels(rows), _in_pixels(columns)]
            weights = blend_weights(layout, tile, 1)[..., 0]
            whole[..., rows, columns] += weights * self._encoded(seen, on_piece_of_tile)
        return whole

    def _mean(self, moments: torch.Tensor) -> torch.Tensor:
        return moments[:, : self.latent_channels].float().cpu()

    @torch.no_grad()
    def stream(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Raw latents (1, 16, T, h, w) -> IMAGE pieces (f, H, W, 3), 0..1, float32, CPU, in order.

        In as many tiles as the free memory asks for, and in smaller ones when it runs out all the same. Raises
        RequestError when even the smallest do not fit.
        """
        height, width = latents.shape[-2:]
        need = Need(*(self._bytes(PIXELS_A_LATENT, PIXELS_A_LATENT, count)
                      for count in (DECODE_BYTES_A_PIXEL, CACHE_BYTES_A_PIXEL)))
        done = 0
        for share in SHARES:
            vae, device = self._ready(height * PIXELS_A_LATENT, width * PIXELS_A_LATENT, DECODE_BYTES_A_PIXEL)
            layout = choose_layout(height, width, int(self.resident.free() * share), need)
            seen = 0
            try:
                for frames in decoded(vae, latents, layout, device, self.dtype):
                    seen += len(frames)
                    if seen > done:  # the others were given before the memory ran out
                        yield frames[max(0, len(frames) - (seen - done)) :]
                        done = seen
                return
            except RuntimeError as error:
                if not self.resident.ran_out(error):
                    raise
            # What the failed piece held is released only now that its exception has gone.
            self.resident.make_room(0)
        raise RequestError(NO_ROOM.format("decode"))

    @torch.no_grad()
    def decode_tiled(self, latents: torch.Tensor, tile_x: int, tile_y: int, overlap: int, tile_t: int | None = None,
                     overlap_t: int | None = None) -> torch.Tensor:
        """As `decode`, in overlapping tiles of so many latents, for core's VAE Decode (Tiled).

        Tiles in time are not needed: the decoder is causal and takes a latent at a time.
        """
        layout = layout_of_size(*latents.shape[-2:], tile_y, tile_x, overlap)
        vae, device = self._ready(tile_y * PIXELS_A_LATENT, tile_x * PIXELS_A_LATENT, DECODE_BYTES_A_PIXEL)
        return torch.stack([torch.cat(list(decoded(vae, latent, layout, device, self.dtype)))
                            for latent in latents.split(1)])

    def decode(self, latents: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """Raw latents (B, 16, T, h, w) -> IMAGE (B, 4 (T - 1) + 1, 8 h, 8 w, 3), 0..1, float32, CPU."""
        batch, _, length, height, width = latents.shape
        frames = FRAMES_A_LATENT * (length - 1) + 1
        images = torch.empty(batch, frames, height * PIXELS_A_LATENT, width * PIXELS_A_LATENT, 3)
        done = 0
        for latent, image in zip(latents.split(1), images, strict=True):
            for piece in self.stream(latent):
                at = done % frames
                image[at : at + len(piece)] = piece
                done += len(piece)
                on_piece(done, batch * frames)
        return images


def _whole_latents(pixels: torch.Tensor) -> torch.Tensor:
    """IMAGE without the frames beyond the last 4n + 1 and the pixels beyond the last multiple of 8."""
    height, width = (side // PIXELS_A_LATENT * PIXELS_A_LATENT for side in pixels.shape[1:3])
    frames = (pixels.shape[0] - 1) // FRAMES_A_LATENT * FRAMES_A_LATENT + 1
    return pixels[:frames, :height, :width, :3]


def _in_pixels(latents: slice) -> slice:
    return slice(latents.start * PIXELS_A_LATENT, latents.stop * PIXELS_A_LATENT)


def _to_clip(image: torch.Tensor) -> torch.Tensor:
    """IMAGE (F, H, W, 3), 0..1, -> frames (1, 3, F, H, W), -1..1."""
    return image.permute(3, 0, 1, 2)[None] * 2 - 1

WHAT = "Wan 2.1 VAE"


def _diffusers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under diffusers' names, whichever they have."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    prefix = vae_prefix(weights)
    weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights if "encoder.conv_in.weight" in weights else convert_wan_vae_to_diffusers(weights)


def load_vae(path: Path, host: Host) -> tuple[Resident, torch.dtype]:
    """AutoencoderKLWan and the dtype to run it in, from a file or a diffusers folder.

    Raises CheckpointError when it is not that VAE.
    """
    check_slot(probe(path), Slot.VAE)
    import torch
    from diffusers import AutoencoderKLWan

    weights = _diffusers_names(read_weights(path)[0])
    dtype = host.compute_dtype(weights["encoder.conv_in.weight"].dtype)
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=weights["decoder.norm_out.gamma"].shape[0])
    load_exactly(path.name, WHAT, vae, {key: dequantise(value, dtype) for key, value in weights.items()})
    return host.adopt(vae.eval().requires_grad_(False)), dtype
