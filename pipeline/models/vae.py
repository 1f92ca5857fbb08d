"""Load the Wan 2.1 VAE, which Wan 2.2 A14B uses, and encode and decode clips with it piece by piece.

The VAE is causal in time: frame 0 is one latent, each later latent is 4 frames, and every convolution keeps its last
two inputs for the next piece. So pieces give exactly the result of the whole clip (diffusers, AutoencoderKLWan._encode
and _decode), in memory that does not grow with the clip.

Files have the names of the official `Wan2.1_VAE.pth`, wan/modules/vae2_1.py of github.com/Wan-Video/Wan2.2, as
Comfy-Org's and Kijai's do, or diffusers' names; either may have a prefix (checkpoint/detect.py, VAE_PREFIXES). The base
width follows from the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.detect import vae_prefix
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import probe_checkpoint
from ..checkpoint.quantised import dequantise
from ..checkpoint.read import load_exactly, read_weights
from ..request import RequestError
from .host import Host, Resident
from .tiles import Cuts, DecodeMemory, TileGrid, blend_weights, choose_grid, grid_of_size
from .vae_decoder import FRAMES_A_LATENT, PIXELS_A_LATENT, decode_pieces, piece_ranges

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

WHAT = "Wan 2.1 VAE"
TILE, TILE_OVERLAP = 256, 64
"""Side and overlap of a tile, in pixels, when encoding is out of memory."""
TOO_LITTLE_MEMORY = (f"There is too little memory on the device to {{}} even {TILE}x{TILE} pixels at a time. Close "
                     "what else uses the GPU.")
ENCODE_BYTES_A_PIXEL, DECODE_BYTES_A_PIXEL = 7500, 10200
"""Peak activations for each pixel of the frame, at base_dim 96 and 2 bytes a number: 3 and 4.05 GB at 832x480
(bench/README.md, "Memory at full size")."""
CACHE_BYTES_A_PIXEL = 4734
"""The part that the decoder keeps for the next piece: 2,367 numbers, the last two inputs of each convolution."""
OTHER_FAMILIES = ("AutoencoderKL", "AutoencoderKLCogVideoX")
"""ComfyUI's classes of VAEs (comfy/sd.py) that may have 16 channels, 8x8 pixels and 4 frames a latent too: those of
HunyuanVideo and of CogVideoX."""
SHARES = (0.9, 0.4, 0.0)
"""Shares of the free memory to fill, tried in this order; the last gives the smallest tiles."""


def check_vae(vae: Any) -> None:
    """Raise RequestError for no VAE, which is what ComfyUI's loaders give of a checkpoint without one, and for one of
    another family whose latents have the shape of Wan's."""
    if vae is None:
        raise RequestError("There is no VAE: the file that vae comes from holds none. Connect Load Wan 2.2, or Load "
                           "VAE with wan_2.1_vae.")
    kind = type(getattr(vae, "first_stage_model", None)).__name__
    if kind in OTHER_FAMILIES:
        raise RequestError(f"vae is the VAE of another model ({kind}). Connect Load Wan 2.2, or Load VAE with "
                           "wan_2.1_vae.")


class WanVAE:
    """A VAE for a VAE socket, with the methods that ComfyUI's VAE nodes call."""

    latent_channels = 16
    latent_dim = 3

    def __init__(self, resident: Resident, dtype: torch.dtype, cuts: Cuts | None = None) -> None:
        """cuts: of a clip that is made in several calls, which all cut its frames alike."""
        self.resident, self.dtype, self.cuts = resident, dtype, cuts

    @property
    def patcher(self) -> Any:
        """The patcher that ComfyUI's cache and memory manager ask for."""
        return getattr(self.resident, "patcher", None)

    def spacial_compression_encode(self) -> int:
        """Return the pixels a side for each latent; the name is ComfyUI's."""
        return PIXELS_A_LATENT

    spacial_compression_decode = spacial_compression_encode

    def temporal_compression_decode(self) -> int:
        """Return the frames for each latent; the name is ComfyUI's."""
        return FRAMES_A_LATENT

    def _bytes(self, height: int, width: int, bytes_a_pixel: int) -> int:
        """Scale a measured number of bytes for each pixel to this VAE's width and dtype and to a frame."""
        factor = self.resident.module.config.base_dim / 96 * self.dtype.itemsize / 2
        return int(height * width * bytes_a_pixel * factor)

    def _ready(self, height: int, width: int, bytes_a_pixel: int) -> tuple[AutoencoderKLWan, torch.device]:
        """Load the VAE with memory for a frame of that size; return it and its device."""
        return self.resident.module, self.resident.load_to_device(self._bytes(height, width, bytes_a_pixel))

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """Encode IMAGE (F, H, W, 3), 0..1, as a clip: raw latents (1, 16, (F - 1) // 4 + 1, H / 8, W / 8), float32.

        Frames beyond the last 4n + 1 and pixels beyond the last multiple of 8 are dropped, as by ComfyUI's VAE. When
        a whole frame does not fit the device, the clip is encoded in tiles. on_piece(done, total) counts latents.
        Raises RequestError when not even a tile fits.
        """
        pixels = _whole_latents(pixels)
        size = (*pixels.shape[1:3], ENCODE_BYTES_A_PIXEL)
        self._ready(*size)
        cuts = self.cuts or Cuts()
        # Windows moves what does not fit to RAM, slowly, and reports nothing: so it is not tried.
        if not cuts.encode_in_tiles and self._bytes(*size) <= self.resident.available_bytes():
            try:
                latents = self._encoded(pixels, on_piece)
                cuts.settle_encoding(False)
                return latents
            except RuntimeError as error:
                if not self.resident.is_oom(error):
                    raise
            # The failed piece's tensors are released only after its exception.
            self.resident.free_memory(0)
        cuts.settle_encoding(True)
        try:
            return self._encoded_in_tiles(pixels, TILE, TILE, TILE_OVERLAP, on_piece)
        except RuntimeError as error:
            if not self.resident.is_oom(error):
                raise
            raise RequestError(TOO_LITTLE_MEMORY.format("encode")) from error

    def _encoded(self, pixels: torch.Tensor, on_piece: Callable[[int, int], None]) -> torch.Tensor:
        """Encode one frame size at once, piece by piece in time."""
        frames, height, width, _ = pixels.shape
        latents = (frames - 1) // FRAMES_A_LATENT + 1
        vae, device = self._ready(height, width, ENCODE_BYTES_A_PIXEL)
        cache: list[Any] = [None] * vae._cached_conv_counts["encoder"]
        moments = []
        for start, count in piece_ranges(latents, height * width):
            first = max(0, 1 + (start - 1) * FRAMES_A_LATENT)
            piece = _to_clip(pixels[first : first + (1 if start == 0 else count * FRAMES_A_LATENT)])
            moments.append(vae.quant_conv(vae.encoder(piece.to(device, self.dtype), feat_cache=cache, feat_idx=[0])))
            on_piece(start + count, latents)
        return self._mean(torch.cat(moments, 2))

    @torch.no_grad()
    def encode_tiled(self, pixels: torch.Tensor, tile_x: int, tile_y: int, overlap: int, tile_t: int | None = None,
                     overlap_t: int | None = None) -> torch.Tensor:
        """Encode as `encode` does, in overlapping tiles; sizes are in pixels. ComfyUI's VAE Encode (Tiled) calls it.

        The overlap is at most a quarter of a tile, as in ComfyUI's VAE Decode (Tiled). Tiles in time are ignored: the
        encoder is causal and takes a latent at a time.
        """
        return self._encoded_in_tiles(_whole_latents(pixels), tile_x, tile_y, overlap, lambda done, total: None)

    def _encoded_in_tiles(self, pixels: torch.Tensor, tile_x: int, tile_y: int, overlap: int,
                          on_piece: Callable[[int, int], None]) -> torch.Tensor:
        height, width, tile_height, tile_width, overlap = (
            side // PIXELS_A_LATENT
            for side in (*pixels.shape[1:3], tile_y, tile_x, min(overlap, tile_y // 4, tile_x // 4)))
        grid = grid_of_size(height, width, tile_height, tile_width, overlap)
        whole = torch.zeros(1, self.latent_channels, (pixels.shape[0] - 1) // FRAMES_A_LATENT + 1, height, width)
        tiles = list(grid.tiles())
        for number, tile in enumerate(tiles):
            def on_piece_of_tile(done: int, total: int, number: int = number) -> None:
                on_piece(number * total + done, len(tiles) * total)

            rows, columns = slice(tile.top, tile.top + tile.height), slice(tile.left, tile.left + tile.width)
            seen = pixels[:, _in_pixels(rows), _in_pixels(columns)]
            weights = blend_weights(grid, tile, 1)[..., 0]
            whole[..., rows, columns] += weights * self._encoded(seen, on_piece_of_tile)
        return whole

    def _mean(self, moments: torch.Tensor) -> torch.Tensor:
        return moments[:, : self.latent_channels].float().cpu()

    def decode_grid(self, height: int, width: int, free: int) -> TileGrid:
        """Return the tiles in which a frame of that size, in latents, is decoded with `free` bytes for it."""
        return choose_grid(height, width, free, self._decode_memory())

    def _decode_memory(self) -> DecodeMemory:
        return DecodeMemory(*(self._bytes(PIXELS_A_LATENT, PIXELS_A_LATENT, count)
                              for count in (DECODE_BYTES_A_PIXEL, CACHE_BYTES_A_PIXEL)))

    @torch.no_grad()
    def stream(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Decode raw latents (1, 16, T, h, w); yield IMAGE pieces (f, H, W, 3), float32 0..1, on the CPU, in order.

        The frame is cut into as few tiles as fit the free memory, and into smaller ones when that runs out. Raises
        RequestError when not even the smallest fit.
        """
        height, width = latents.shape[-2:]
        cuts, done = self.cuts or Cuts(), 0
        for share in SHARES:
            vae, device = self._ready(height * PIXELS_A_LATENT, width * PIXELS_A_LATENT, DECODE_BYTES_A_PIXEL)
            free, need = int(self.resident.available_bytes() * share), self._decode_memory()
            grid = (cuts.decode and cuts.decode.that_fits(free, need)) or choose_grid(height, width, free, need)
            seen = 0
            try:
                for frames in decode_pieces(vae, latents, grid, device, self.dtype):
                    cuts.settle_decoding(grid)
                    seen += len(frames)
                    if seen > done:  # earlier frames were yielded before the memory ran out
                        yield frames[max(0, len(frames) - (seen - done)) :]
                        done = seen
                return
            except RuntimeError as error:
                if not self.resident.is_oom(error):
                    raise
            # The failed piece's tensors are released only after its exception.
            self.resident.free_memory(0)
        raise RequestError(TOO_LITTLE_MEMORY.format("decode"))

    @torch.no_grad()
    def decode_tiled(self, latents: torch.Tensor, tile_x: int, tile_y: int, overlap: int, tile_t: int | None = None,
                     overlap_t: int | None = None) -> torch.Tensor:
        """Decode as `decode` does, in overlapping tiles; sizes are in latents. ComfyUI's VAE Decode (Tiled) calls it.

        Tiles in time are ignored: the decoder is causal and takes a latent at a time.
        """
        grid = grid_of_size(*latents.shape[-2:], tile_y, tile_x, overlap)
        vae, device = self._ready(tile_y * PIXELS_A_LATENT, tile_x * PIXELS_A_LATENT, DECODE_BYTES_A_PIXEL)
        return torch.stack([torch.cat(list(decode_pieces(vae, latent, grid, device, self.dtype)))
                            for latent in latents.split(1)])

    def decode(self, latents: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
               ) -> torch.Tensor:
        """Decode raw latents (B, 16, T, h, w) to IMAGE (B, 4 (T - 1) + 1, 8 h, 8 w, 3), float32 0..1, on the CPU.

        on_piece(done, total) counts frames.
        """
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
    """Crop an IMAGE to 4n + 1 frames, multiples of 8 pixels and 3 channels."""
    height, width = (side // PIXELS_A_LATENT * PIXELS_A_LATENT for side in pixels.shape[1:3])
    frames = (pixels.shape[0] - 1) // FRAMES_A_LATENT * FRAMES_A_LATENT + 1
    return pixels[:frames, :height, :width, :3]


def _in_pixels(latents: slice) -> slice:
    return slice(latents.start * PIXELS_A_LATENT, latents.stop * PIXELS_A_LATENT)


def _to_clip(image: torch.Tensor) -> torch.Tensor:
    """Convert IMAGE (F, H, W, 3), 0..1, to frames (1, 3, F, H, W), -1..1."""
    return image.permute(3, 0, 1, 2)[None] * 2 - 1


def load_vae(path: Path, host: Host) -> tuple[Resident, torch.dtype]:
    """Load AutoencoderKLWan from a file or a diffusers folder; return it and its compute dtype.

    Raises CheckpointError for any other file.
    """
    check_slot(probe_checkpoint(path), Slot.VAE)
    from diffusers import AutoencoderKLWan

    weights = _rename_to_diffusers(read_weights(path)[0])
    dtype = host.compute_dtype(weights["encoder.conv_in.weight"].dtype)
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=weights["decoder.norm_out.gamma"].shape[0])
    load_exactly(path.name, WHAT, vae, {key: dequantise(value, dtype) for key, value in weights.items()})
    return host.adopt(vae.eval().requires_grad_(False)), dtype


def _rename_to_diffusers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights under diffusers' names, from the official names or diffusers' own."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    prefix = vae_prefix(weights)
    weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights if "encoder.conv_in.weight" in weights else convert_wan_vae_to_diffusers(weights)
