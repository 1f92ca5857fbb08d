"""ComfyUI as the host: the only file of the pipeline that touches it.

Linear layers and memory, progress and Stop, its own sampling, folders and results. Written for ComfyUI 0.30; imported
only inside a running ComfyUI, and only once a node is executed.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy.cli_args import args
from comfy.ldm.modules import attention
from comfy.quant_ops import QUANT_ALGOS, QuantizedLayout, QuantizedTensor, register_layout_class
from comfy.weight_adapter.base import WeightAdapterBase
from comfy_kitchen.tensor.base import BaseLayoutParams

from .attention import Attend
from .bridge import ModelFacts, RunStage, Stage
from .checkpoint.errors import CheckpointError
from .checkpoint.expert import Expert
from .checkpoint.quantised import FP8_FORMATS, GGUF, QuantisedWeight, Weight, dequantise_gguf
from .download.cache import DOWNLOADS
from .download.tokens import Tokens
from .host import Host, Patch, Targets
from .lora.apply import add_loras
from .lora.changes import Algebra, Change, PatchedParameters, to_magnitude
from .lora.fetcher import lora_fetcher
from .lora.lora import Lora
from .lora.match import LoraFile
from .lora.named_file import named_file
from .lora.open import Fetch
from .lora.probe import check_fits
from .lora.use import open_loras
from .own_errors import errors_said
from .preview import film_strip
from .remote.desk import Desk
from .remote.errors import RunEndedError
from .remote.event import failure_of
from .remote.ledger import Limits
from .remote.notify import GraphRun
from .remote_desk import Driver, open_desk
from .request import RequestError, Sampling
from .shown_file import shown_in

PREVIEW_SIDE = 512
MPS_OUT_OF_MEMORY = ("MPS backend out of memory", "Invalid buffer size")
"""How PyTorch's messages begin (aten/src/ATen/mps/MPSAllocator.mm)."""
REMOTE_RESULTS = "wan22/remote"
"""Folder of clips that providers made, in ComfyUI's output folder."""
SAMPLERS = {"euler": "euler", "unipc": "uni_pc", "dpmpp_2m": "dpmpp_2m"}
"""Our scheduler -> ComfyUI's sampler of that family."""


class _GGUFLayout(QuantizedLayout):
    """GGUF blocks as one of ComfyUI's quantised tensors: paged, moved and patched by LoRAs like its own formats."""

    NAME = "Wan22GGUFLayout"

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """No scale of its own: the blocks hold theirs. `kind` is the ggml type's name."""

        kind: str = ""

        def _tensor_fields(self) -> list[str]:
            return []

    @classmethod
    def quantize(cls, tensor: torch.Tensor, **kwargs: Any) -> Any:
        raise NotImplementedError("GGUF weights cannot be packed again.")

    @classmethod
    def dequantize(cls, qdata: torch.Tensor, params: Params) -> torch.Tensor:
        return dequantise_gguf(qdata, params.kind, params.orig_dtype).view(params.orig_shape)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[torch.Tensor, ...]:
        return (qtensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
        return {"": qdata}


register_layout_class(_GGUFLayout.NAME, _GGUFLayout)


def _linear(compute: torch.dtype) -> type[torch.nn.Module]:
    """ComfyUI's linear layer for weights of any kind, packed or not."""
    device = comfy.model_management.get_torch_device()
    native = {"nvfp4": comfy.model_management.supports_nvfp4_compute,
              "mxfp8": comfy.model_management.supports_mxfp8_compute,
              **dict.fromkeys(FP8_FORMATS, comfy.model_management.supports_fp8_compute)}
    apple = comfy.model_management.is_device_mps(device)
    emulated = {name for name, supported in native.items() if not supported(device)}

    class Linear(comfy.ops.mixed_precision_ops({}, compute, disabled=emulated).Linear):
        _home: tuple[torch.nn.Parameter, torch.nn.Parameter | None]

        def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> torch.nn.Module:
            # Back from the GPU the weights are the file's mapped pages again; a copy would fill the RAM.
            if self.weight.device.type != "cpu" and fn(torch.empty(0)).device.type == "cpu":
                self.weight, self.bias = self._home
                return self
            return super()._apply(fn, recurse)

        def take(self, weight: Weight, bias: torch.Tensor | None) -> None:
            """See host.WeightTaker."""
            if apple and _holds_fp8(weight):
                raise CheckpointError("Apple's GPUs know no fp8, which these weights are in. Choose the fp16 or a GGUF "
                                      "file.")
            self._set(weight, bias)
            self._home = (self.weight, self.bias)

        def _set(self, weight: Weight, bias: torch.Tensor | None) -> None:
            self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
            if not isinstance(weight, QuantisedWeight):
                self.weight = torch.nn.Parameter(weight, requires_grad=False)
            elif weight.format == GGUF:
                self.quant_format = GGUF
                params = _GGUFLayout.Params(None, compute, weight.shape, weight.options["type"])
                self.weight = torch.nn.Parameter(QuantizedTensor(weight.data, _GGUFLayout.NAME, params),
                                                 requires_grad=False)
            elif weight.format not in QUANT_ALGOS:
                raise CheckpointError(f"This ComfyUI does not read {weight.format} weights. Update it, or choose an "
                                      "fp16, fp8_scaled or GGUF file.")
            else:
                entry = json.dumps({"format": weight.format, **weight.options}).encode()
                self.load_state_dict({"weight": weight.data, **weight.scales,
                                      "comfy_quant": torch.tensor(list(entry), dtype=torch.uint8),
                                      **({} if bias is None else {"bias": bias})}, assign=True)

    return Linear


def _holds_fp8(weight: Weight) -> bool:
    """Whether the weight or its scales are fp8; MXFP8 and NVFP4 have them in it."""
    if isinstance(weight, QuantisedWeight):
        return weight.format in (*FP8_FORMATS, "mxfp8", "nvfp4")
    return weight.dtype in FP8_FORMATS.values()


class _Holder(torch.nn.Module):
    """Keeps a diffusers model from ComfyUI's patcher, which sets `.device`: a read-only property of theirs."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.device = None


class _DoRA(WeightAdapterBase):
    """See changes.to_magnitude. ComfyUI 0.30's own divides rows by |W| and spreads a flat m over the wrong axis (its
    pull requests 15458 and 13011)."""

    name = "dora"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, torch.Tensor]) -> None:
        """weights: the change, one of ComfyUI's patches, and the magnitudes."""
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: None,
                         function: Callable[[torch.Tensor], torch.Tensor], *options: Any) -> torch.Tensor:
        """See WeightAdapterBase."""
        change, magnitude = self.weights
        return to_magnitude(weight, _add([(1.0, change, 1.0, None, function)], weight.clone(), key), magnitude,
                            strength)


def _add(patches: list[tuple[Any, ...]], weight: torch.Tensor, name: str) -> torch.Tensor:
    return comfy.lora.calculate_weight(patches, weight, name, intermediate_dtype=weight.dtype)


_ALGEBRA = Algebra(load=functools.partial(comfy.lora.load_lora, log_missing=False), add=_add,
                   dora=lambda name, change, magnitude: _DoRA({name}, (change, magnitude)))


class PatchedResident:
    """A module that ComfyUI's memory manager counts, moves and evicts."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            _Holder(module),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        self._layers = {name: m for name, m in module.named_modules() if hasattr(m, "comfy_cast_weights")}
        self._streams = bool(self._layers)
        self._strays = [m for m in module.modules() if not hasattr(m, "comfy_cast_weights")]
        self._beside = PatchedParameters(module, _ALGEBRA)

    def bring(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """Load the module; others make room. Needed before every use: it may have been evicted.

        A module of ComfyUI's own linear layers is loaded as far as there is room and streams the rest from RAM.
        """
        device = self.patcher.load_device
        own = sum(p.nbytes for m in self._strays for p in m.parameters(recurse=False)) if self._streams else 0
        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes + own,
                                               force_full_load=not self._streams)
        # ComfyUI streams its own layers only; everything beside them has to be there.
        for module in self._strays:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(device)
        self._patch(patches)
        return device

    def _patch(self, patches: Sequence[Patch]) -> None:
        """Put these patches in force and no others.

        ComfyUI's layers work theirs out for each use, so that changing a LoRA loads nothing anew; the few parameters
        beside them, norms for the most part, are changed and changed back.
        """
        wanted: dict[str, list[tuple[float, Any]]] = {}
        for patch in patches:
            wanted.setdefault(patch.parameter, []).append((patch.scale, patch.change))
        for name, layer in self._layers.items():
            for part in ("weight", "bias"):
                found = wanted.pop(f"{name}.{part}", None)
                setattr(layer, f"{part}_function", [] if found is None else [Change(_ALGEBRA, name, found)])
        self._beside.put(wanted)

    def ran_out(self, error: RuntimeError) -> bool:
        """Whatever ComfyUI takes for it: CUDA may report it late, as an error of another class. Apple's GPUs have no
        class for it."""
        return comfy.model_management.is_oom(error) or str(error).startswith(MPS_OUT_OF_MEMORY)

    def make_room(self, activation_bytes: int) -> None:
        """Free that much more on the device, this module's own layers included: they stream from then on."""
        device = self.patcher.load_device
        comfy.model_management.soft_empty_cache()
        comfy.model_management.free_memory(activation_bytes, device)
        if self._streams and not comfy.model_management.is_device_cpu(device):
            self.patcher.partially_unload(self.patcher.offload_device, activation_bytes)

    def free(self) -> int:
        """Bytes of the device's memory that a pass may use now, PyTorch's reserve included."""
        return comfy.model_management.get_free_memory(self.patcher.load_device)


def _compute_dtype(stored: torch.dtype) -> torch.dtype:
    device = comfy.model_management.get_torch_device()
    return comfy.model_management.unet_manual_cast(stored, device) or stored


def _clip(path: Path) -> Any:
    """UMT5-XXL through ComfyUI's own loader, as its CLIPLoader node of type wan does."""
    import comfy.sd

    return comfy.sd.load_clip([str(path)], embedding_directory=folder_paths.get_folder_paths("embeddings"),
                              clip_type=comfy.sd.CLIPType.WAN)


def _attend() -> Attend | None:
    """ComfyUI's attention where it differs from diffusers' own: by its flags (--use-sage-attention and the like), or on
    a GPU whose scaled_dot_product_attention would hold the whole matrix at once (Apple's, some of AMD's)."""
    chosen = attention.optimized_attention
    asked_for = args.use_split_cross_attention or args.use_quad_cross_attention
    on_cpu = comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())
    if chosen is attention.attention_pytorch or (on_cpu and not asked_for):
        return None
    return lambda query, key, value, heads, mask: chosen(query, key, value, heads, mask=mask)


def host() -> Host:
    """ComfyUI's linear layers, dtypes, memory management, attention, UMT5-XXL and LoRA algebra."""
    return Host(linear=_linear, compute_dtype=_compute_dtype, adopt=PatchedResident, clip=_clip,
                read_lora=_ALGEBRA.read, attend=_attend())


def memory() -> tuple[int, int]:
    """Bytes of the device's memory, free and in all; of the RAM where there is no GPU."""
    device = comfy.model_management.get_torch_device()
    return comfy.model_management.get_free_memory(device), comfy.model_management.get_total_memory(device)


def stop_if_asked() -> None:
    """Raise ComfyUI's own interrupt when the user pressed Stop, so that the run reads as cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def download_folder() -> Path:
    """Where fetched files are kept: beside the model folders, where a big disk is, and in none that ComfyUI lists."""
    return Path(folder_paths.models_dir, DOWNLOADS)


def tokens() -> Tokens:
    """The user's tokens: of the environment, else of a key store that ComfyUI's server hands out to nobody."""
    return Tokens(store=system_folder() / "keys.json")


def lora_file(name: str) -> Path | None:
    """A file of the loras folders, by the name that ComfyUI lists it under, or one of the bundled pair."""
    return named_file(name, folder_paths.get_full_path)


def downloader(node_id: str | None) -> Fetch:
    """Fetches LoRA files with ComfyUI's progress bar, Stop, folders and keys."""
    return lora_fetcher(download_folder(), system_folder(), tokens(),
                        lambda: comfy.utils.ProgressBar(1).update_absolute, lambda text: say(node_id, text),
                        stop_if_asked)


def system_folder() -> Path:
    """Where the pack keeps what ComfyUI's server hands out to nobody: keys, settings, the ledger of remote jobs."""
    return Path(folder_paths.get_system_user_directory("wan22"))


def remote_desk(node_id: str | None, limits: Limits) -> Desk:
    """The surroundings of a remote job: ComfyUI's folders, Stop, and the text on the node."""
    run = _running_item()
    return open_desk(system_folder(), Path(folder_paths.get_output_directory(), REMOTE_RESULTS),
                     None if run is None else Driver(*run[1:3], run[3] or {}), limits,
                     _speaker(node_id), lambda: _stop_or_end(run and run[1]), _job_changed, lora_file)


def _stop_or_end(prompt_id: str | None) -> None:
    """For work beside a run, in a thread of its own: raise ComfyUI's interrupt when the user pressed Stop,
    RunEndedError when the run is over for another reason.

    The sign of Stop is only looked at, so that a node which computes at this moment hears it too. Once a run is over,
    its history alone tells why. When ComfyUI itself ends, the thread ends with it, and no job is called off.
    """
    if prompt_id is not None and run_is_over(prompt_id):
        if not run_error(prompt_id)["cancelled"]:
            raise RunEndedError
        raise comfy.model_management.InterruptProcessingException
    if comfy.model_management.processing_interrupted():
        raise comfy.model_management.InterruptProcessingException


def _job_changed(job_id: str) -> None:
    """Tell every open page that there is news of a remote job; what it is, the pages ask for."""
    from server import PromptServer

    PromptServer.instance.send_sync("wan22.jobs", {"job": job_id})


def is_linked(output: int) -> bool:
    """Whether anything in the running graph takes this output of the running node."""
    run = graph_run()
    return run is None or run.takes(output)


def progress() -> Callable[[int, int], None]:
    """(done, total) -> shown as the running node's progress bar. Raises the interrupt on Stop."""
    bar = comfy.utils.ProgressBar(1)

    def update(done: int, total: int) -> None:
        stop_if_asked()
        bar.update_absolute(done, total)

    return update


def progress_with_preview(expert: Expert, total: int) -> Callable[[int, torch.Tensor], None]:
    """(step index, clean latents) -> progress bar and a film strip of the clip's begin, middle and end."""
    bar = comfy.utils.ProgressBar(total)
    stock = comfy.latent_formats.Wan21
    factors, bias = expert.latent_rgb or (stock.latent_rgb_factors, stock.latent_rgb_factors_bias)
    factors, bias = torch.tensor(factors), torch.tensor(bias)

    def update(step: int, clean: torch.Tensor) -> None:
        bar.update_absolute(step + 1, total, ("JPEG", film_strip(clean, factors, bias), PREVIEW_SIDE))

    return update


def say(node_id: str | None, text: str) -> None:
    """Show a line of text on the node, to the client that runs the graph."""
    _speaker(node_id)(text)


def _speaker(node_id: str | None) -> Callable[[str], None]:
    """As `say`, to the client whose graph runs now, also when another's does later."""
    from server import PromptServer

    server = PromptServer.instance
    if node_id is None or server is None:
        return lambda text: None
    client = server.client_id
    return lambda text: server.send_progress_text(text, node_id, client)


def errors_on_node(node_id: str | None) -> AbstractContextManager[None]:
    """Show the pack's own errors on the node too: ComfyUI's message box hides them behind a click."""
    return errors_said(lambda text: say(node_id, text))


def model_facts(model: Any) -> ModelFacts:
    """What is known of a MODEL."""
    transformer = model.model.diffusion_model
    patches = getattr(transformer, "patch_embedding", None)
    return ModelFacts(called=type(model.model).__name__,
                      latent_channels=model.get_model_object("latent_format").latent_channels,
                      in_channels=None if patches is None else patches.weight.shape[1],
                      image_projection=getattr(transformer, "img_emb", None) is not None,
                      text_dim=getattr(transformer, "text_dim", None))


def models_with_loras(models: tuple[Any, Any], loras: Sequence[Lora], node_id: str | None,
                      ) -> tuple[list[Any], list[str]]:
    """Clones of the MODELs with the LoRAs as patches, as ComfyUI's own loader makes them, and what `fit` says.

    `models` are Wan 2.2 I2V-A14B experts, indexed by schedule.HIGH and schedule.LOW. Raises as `open_loras` and
    `add_loras` do.
    """
    transformer = models[0].model.diffusion_model
    files = open_loras(loras, lora_file, downloader(node_id), stop_if_asked,
                       lambda facts: check_fits(facts, transformer.dim, len(transformer.blocks)))
    return add_loras(models, files, _model_targets, _model_with_patches, _ALGEBRA.read)


def _model_targets(model: Any) -> Targets:
    return {name.removesuffix(".weight"): (f"diffusion_model.{name}", tuple(value.shape))
            for name, value in model.model.diffusion_model.named_parameters()}


def _model_with_patches(model: Any, changes: Mapping[str, Any], file: LoraFile, index: int) -> Any:
    patched = model.clone()
    patched.add_patches(changes, file.lora.scale)
    # ComfyUI works all weights out anew under a new id; the same file at the same scale gets the same one.
    stat = file.path.stat()
    patched.patches_uuid = uuid.uuid5(model.patches_uuid, f"{file.path} {stat.st_size} {stat.st_mtime_ns} "
                                                          f"{file.lora.scale!r} {index}")
    return patched


def _sampler(scheduler: str, steps: int) -> Any:
    """ComfyUI's sampler of our scheduler's family, for a stage of so many steps.

    Its uni_pc solves by order min(3, steps - 1) (comfy/extra_samplers/uni_pc.py, sample_unipc): of one step it makes
    none at all. UniPC itself begins with a step of order 1, x0 + (sigma' / sigma) (x - x0) for a flow model: Euler's.
    """
    return comfy.samplers.sampler_object("euler" if scheduler == "unipc" and steps == 1 else SAMPLERS[scheduler])


def stage_runner(models: tuple[Any, Any], sampling: Sampling) -> RunStage:
    """Stages on ComfyUI's own sampling, with everything that patches a MODEL in force.

    `models` are indexed by schedule.HIGH and schedule.LOW. The sigmas are given, so that a MODEL's own shift does not
    matter: a flow model's timestep is sigma * 1000 (comfy/model_sampling.py, ModelSamplingDiscreteFlow.timestep).
    """
    total = sampling.num_inference_steps
    show = latent_preview.prepare_callback(models[0], total)

    def run(stage: Stage) -> torch.Tensor:
        def on_step(step: int, clean: torch.Tensor, latents: torch.Tensor, steps_of_stage: int) -> None:
            show(stage.steps.start + step, clean, latents, total)

        guider = comfy.samplers.CFGGuider(models[stage.expert])
        guider.set_conds(stage.positive, stage.negative)
        guider.set_cfg(stage.guidance_scale)
        return guider.sample(stage.noise, stage.latents, _sampler(sampling.scheduler, len(stage.steps)), stage.sigmas,
                             callback=on_step, disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                             seed=sampling.seed).float().cpu()

    return run


def new_output_file(prefix: str, width: int, height: int, suffix: str) -> Path:
    """A path in ComfyUI's output folder that no file has yet. Raises RequestError for a prefix that leads out of it."""
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), width, height)
    except OSError as error:
        raise RequestError(f"The folder for {prefix} cannot be made: {error.strerror or error}. Choose another in "
                           "filename_prefix.") from error
    except Exception as error:  # ComfyUI's own, of no class of its own
        raise RequestError(f"filename_prefix is {prefix!r}, which leads out of ComfyUI's output folder. Choose a name "
                           "inside, such as wan22/clip.") from error
    return Path(folder) / f"{name}_{counter:05}_{suffix}"


def shown_in_output(path: Path) -> dict[str, str] | None:
    """How the canvas asks for a file of the output folder; None for one that lies elsewhere, which it cannot get."""
    return shown_in(Path(folder_paths.get_output_directory()), path)


def output_path(name: str) -> Path:
    """Full path of a file in ComfyUI's output folder. Raises RequestError when it has gone or lies outside."""
    try:
        path = Path(folder_paths.get_annotated_filepath(f"{name} [output]"))
    except ValueError:
        path = None
    if path is None or not path.is_file():
        raise RequestError(f"{name} is not in ComfyUI's output folder. Refresh the list of files (R on the canvas), or "
                           "choose another.")
    return path


def workflow_metadata(prompt: Any, extra_pnginfo: dict[str, Any] | None) -> dict[str, str]:
    """The graph as metadata, under the names from which the canvas restores it; empty when the user disabled that."""
    if args.disable_metadata:
        return {}
    found = {**(extra_pnginfo or {}), **({} if prompt is None else {"prompt": prompt})}
    return {key: json.dumps(value) for key, value in found.items()}


def frames_of(video: Any) -> torch.Tensor:
    """IMAGE (F, H, W, 3), float 0..1, of a VIDEO of ComfyUI's."""
    return video.get_components().images


def video_from(path: Path) -> Any:
    """A VIDEO of ComfyUI's that reads the file when asked."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def graph_run() -> GraphRun | None:
    """The run that the running node is in; None when that cannot be told."""
    from comfy_execution.utils import get_executing_context

    item = _running_item()
    return None if item is None else GraphRun(item[1], get_executing_context().node_id, item[2], tuple(item[4]))


def _running_item() -> tuple[Any, ...] | None:
    """The queue's entry of the run that the running node is in: number, prompt id, graph, extra data, outputs."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    node = get_executing_context()
    return next((item for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0]
                 if node is not None and item[1] == node.prompt_id), None)


def run_is_over(prompt_id: str) -> bool:
    """Whether a run that began has left ComfyUI's queue."""
    from server import PromptServer

    return all(item[1] != prompt_id for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0])


def run_error(prompt_id: str) -> dict[str, Any]:
    """Why a run that is over brought no clip, as its history tells: message, whether it was cancelled, the node."""
    from server import PromptServer

    return failure_of(PromptServer.instance.prompt_queue.get_history(prompt_id).get(prompt_id, {}))


def video_facts(video: Any) -> dict[str, Any]:
    """Size and length of a VIDEO, and its file as ComfyUI's /view names it; None for one that is not in the output
    folder, or is a part of its file."""
    width, height = video.get_dimensions()
    source = video.get_stream_source() if hasattr(video, "get_active_trim_window") else None
    whole = isinstance(source, str) and video.get_active_trim_window() == (0.0, 0.0)
    shown = shown_in_output(Path(source)) if whole else None
    return {"width": width, "height": height, "frames": video.get_frame_count(),
            "fps": round(float(video.get_frame_rate()), 3),
            "file": None if shown is None else {**shown, "bytes": Path(source).stat().st_size}}
