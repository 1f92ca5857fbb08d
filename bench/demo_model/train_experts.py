"""Train the demo's two experts and its text encoder on cached latents of procedural clips.

usage: train_experts.py VAE_DIR OUT_DIR small [--steps 2500] [--start PT ...]
       train_experts.py VAE_DIR OUT_DIR large --expert high --start OUT_DIR/small.pt [--steps 4000]
       train_experts.py VAE_DIR OUT_DIR large --expert low --start OUT_DIR/small.pt [--steps 4000] [--lr 0.5]

The experts learn for the guidance the nodes use by default: the loss is on
`unconditional + 5 (conditional - unconditional)`, where the unconditional prediction is the experts' own with an
empty prompt, learned from every eighth clip. So guidance 5 gives the clip the prompt describes, a lower one less
of it, a higher one more. The first stage sees crops of 64x64 and 17 frames and trains everything together; the
second sees pictures of 128x128 and 33 frames and trains one expert at a time, the text encoder fixed, so that both
may run side by side. VAE_DIR is that of mark_position.py, without which zooms cannot be learned. Latents of each
stage are cached in OUT_DIR; weights are averages over the last steps, written every 25.

Errors do not count alike. Three of the 16 latent channels hold 95 % of what the eye sees, so that a channel counts as
its error shows in the pixels (`block_encoder.pixel_weights`); what moves counts more than what stays, or a ball
of two per cent of the picture would never learn to roll (`motion_weights`); and the latents that the condition gives
count four times (`COPY`), for the rest of the clip is made of them.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
import whole_clip_vae
from block_encoder import BlockEncoder, pixel_weights
from clips import MOTIONS, NEGATIVE_PROMPTS, Scene, prompt_for, render
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from muon import Muon, set_lr, warm_then_linear_decay
from pictures import canvas
from precision import training_precision
from text import embed, new_text_encoder, train_tokenizer
from training_attention import use_training_attention
from trajectories import OWN, Clips, Trajectories, place_of, sigma_of

CONFIG = {"num_attention_heads": 2, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 128,
          "freq_dim": 256, "ffn_dim": 768, "num_layers": 5, "cross_attn_norm": True}
GUIDANCE, BOUNDARY = 5.0, 0.9
MOST_KNOWN = 4  # latents that a clip may go on from
DETAIL = 0.7  # below 1, channels of fine detail count more than their error shows in the pixels
UNSETTLED = 0.4  # of the low-noise expert's noise levels, those drawn from 0.8 up


def normalise(vae: AutoencoderKLWan, z: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    return (z - mean) / std


def random_speed(g: torch.Generator) -> str:
    """Mostly the speed of a prompt that names none."""
    u = torch.rand((), generator=g).item()
    return "" if u < 0.7 else "slowly" if u < 0.85 else "quickly"


def random_start(motion: str, g: torch.Generator) -> int:
    """How many frames ago the motion began: a clip may go on with a zoom, a tint or a fade. A pan or a still picture
    looks the same at any time."""
    share = {"zoom": 0.45, "tint": 0.5, "fade": 0.5, "ball": 0.3}.get(motion.partition(" ")[0], 0.0)
    return int(torch.randint(4, 33, (), generator=g)) if torch.rand((), generator=g).item() < share else 0


def softened(frames: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Frames (3, F, H, W) as a generated clip ends: blurred, and of slightly other colours."""
    sigma = 0.5 + 1.5 * torch.rand((), generator=g).item()
    taps = torch.exp(-0.5 * (torch.arange(-6, 7).float() / sigma) ** 2)
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    x = F.pad(frames.flatten(0, 1)[:, None], (6, 6, 6, 6), mode="replicate")
    x = F.conv2d(F.conv2d(x, taps), taps.transpose(2, 3))[:, 0].view_as(frames)
    gain = 1 + 0.05 * torch.randn(3, 1, 1, 1, generator=g)
    return (x * gain + 0.03 * torch.randn(3, 1, 1, 1, generator=g)).clamp(-1, 1)


@torch.no_grad()
def cache_latents(vae: AutoencoderKLWan, side: int, frames: int, scenes: int, per_scene: int, seed: int) -> dict:
    """Clips of random scenes under several motions each: latents, their first latents softened, grey latents (one
    frame), motions and speeds, and how much an error in each channel shows."""
    g = torch.Generator().manual_seed(seed)
    encode = BlockEncoder(vae)
    room = 16, (frames - 1) // 4 + 1, side // 8, side // 8  # taken once: many small pieces would scatter the heap
    clips = torch.empty(scenes * per_scene, *room, dtype=torch.float16)
    soft = torch.empty(scenes * per_scene, 16, MOST_KNOWN, *room[2:], dtype=torch.float16)
    labels = []
    names = list(MOTIONS)
    weights_of = torch.zeros(vae.config.z_dim)
    for index in range(scenes):
        with_ball = index % 5 < 3
        picture = canvas(256, 256, g)
        if side < 128 and index % 3 == 0:  # a whole picture made small, not a piece of a large one
            picture = F.interpolate(picture[None], (2 * side, 2 * side), mode="area")[0]
        scene = Scene.random(side, side, g, with_ball, picture)
        allowed = [n for n in names if with_ball or not n.startswith("ball")]
        share = torch.tensor([3.5 if n.startswith("ball") else 1.6 if n.startswith("zoom") else 1 for n in allowed])
        chosen = torch.multinomial(share, per_scene, generator=g).tolist()
        moved = [(allowed[c], random_speed(g)) for c in chosen]
        batch = torch.stack([render(scene, m, s, frames, random_start(m, g)) for m, s in moved])
        rows = slice(index * per_scene, (index + 1) * per_scene)
        clips[rows] = normalise(vae, encode(batch))
        heads = torch.stack([softened(clip[:, : 4 * MOST_KNOWN - 3], g) for clip in batch])
        soft[rows] = normalise(vae, encode(heads))
        labels += [(m, s, index) for m, s in moved]
        if index < 20:
            weights_of += pixel_weights(batch, clips[rows].float()) / 20
    grey = normalise(vae, encode(torch.zeros(1, 3, 1, side, side)))[0]
    return {"clips": clips, "soft": soft, "grey": grey, "labels": labels, "channels": weights_of}


def cached(path: Path, make) -> dict:
    if not path.exists():
        start = time.time()
        torch.save(make(), path)
        print(f"{path.name}: {time.time() - start:.0f} s", flush=True)
    return torch.load(path, mmap=True)


def read_states(paths: list[Path]) -> dict[str, dict[str, torch.Tensor]]:
    """Module name -> weights; a later file's modules take the place of an earlier one's."""
    return {name: state for path in paths for name, state in torch.load(path).items()}


def sample_places(expert: int, count: int) -> torch.Tensor:
    """Places in the schedule, 1 to 0, of one expert's range (0: high, 1: low), as dense as the steps there.

    The low-noise expert meets noise levels from 0.8 up to the boundary more often: there it still settles what moves
    where.
    """
    edge, settled = place_of(BOUNDARY), place_of(0.8)
    u = torch.rand(count)
    if expert == 0:
        return edge * 0.985 + (1 - edge * 0.985) * u
    return edge * 1.02 * torch.where(torch.rand(count) < UNSETTLED, settled / edge + (1 - settled / edge) * u, u)


def sample_sigma(expert: int, count: int) -> torch.Tensor:
    """Noise levels (count, 1, 1, 1, 1) of one expert's range."""
    return sigma_of(sample_places(expert, count))


def condition(latents: torch.Tensor, grey: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mask and latents (B, 20, T, h, w) of clips whose first latents, `known` (B,) of them, are given.

    latents: (B, 16, T, h, w); grey: those of a grey frame, (16, 1, h, w). The encoder works block by block, so that a
    clip's known latents are those of the whole clip, and what is not known is grey.
    """
    mask = (torch.arange(latents.shape[2]) < known[:, None]).view(len(known), 1, -1, 1, 1)
    return torch.cat([mask.expand(-1, 4, -1, *latents.shape[3:]).float(), torch.where(mask, latents, grey)], 1)


KNOWN = torch.tensor([0.55, 0.15, 0.15, 0.15])  # how often 1, 2, 3 and 4 latents are known
SOFT = 0.08, 0.5  # how often they are softened: a first frame, several latents
COPY = 4.0  # how much a known latent counts that is not softened: all that follows is a copy of it


def guided_prediction(model, noisy: torch.Tensor, sigma: torch.Tensor, prompts: list[str], embed_prompts,
                      ) -> torch.Tensor:
    """Velocity under guidance; rows with a prompt of NEGATIVE_PROMPTS stay unconditional. Both predictions come from
    the same weights and both get gradients: with one held fixed, a step that helps both counts five times too much."""
    timestep = sigma.flatten() * 1000
    with training_precision():
        text = embed_prompts([*prompts, *[""] * len(prompts)])
        both = model(torch.cat([noisy, noisy]), torch.cat([timestep, timestep]), text, return_dict=False)[0]
    own, base = both.float().chunk(2)
    weight = torch.tensor([1.0 if p in NEGATIVE_PROMPTS else GUIDANCE for p in prompts]).view(-1, 1, 1, 1, 1)
    return base + weight * (own - base)


def motion_weights(clean: torch.Tensor, strength: float = 2.0) -> torch.Tensor:
    """(B, 1, T, h, w), mean 1 a clip: larger where the clip (B, 16, T, h, w) is not a still of its first frame."""
    moved = (clean - clean[:, :, :1]).pow(2).mean(1, keepdim=True)
    weight = 1 + strength * moved / (moved.mean((1, 2, 3, 4), keepdim=True) + 0.02)
    return weight / weight.mean((1, 2, 3, 4), keepdim=True)


SHARES = {"pan": 0.32, "zoom": 0.32, "ball": 0.14, "still": 0.06}
"""Of the clips drawn in training: what is hardest to learn comes up more often than the rest."""


def draw_weights(labels: list[tuple[str, str, int]]) -> torch.Tensor:
    """(N,): how often to draw each clip, so that every kind has its share."""
    kinds = [motion.partition(" ")[0] for motion, _, _ in labels]
    rest = sum(kind not in SHARES for kind in kinds)
    return torch.tensor([SHARES[kind] / kinds.count(kind) if kind in SHARES else (1 - sum(SHARES.values())) / rest
                         for kind in kinds])


STAGES = {
    # pixels a side, frames, scenes, clips a scene, seed, steps, learning rate factor, batches as (clips, latents)
    "small": (64, 17, 700, 4, 11, 2500, 1.0, ((24, 5),)),
    "large": (128, 33, 4000, 3, 103, 4000, 0.5, ((8, 5), (4, 9))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae")
    parser.add_argument("out", type=Path)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, help="train for so long, whatever the steps")
    parser.add_argument("--lr", type=float, help="learning rate factor; low, to go on from trained weights")
    parser.add_argument("--start", type=Path, nargs="+", default=[], help="weights to go on from; a later file wins")
    parser.add_argument("--expert", choices=("high", "low"), help="train this one alone, the text encoder fixed")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    side, frames, scenes, per_scene, cache_seed, steps, lr, batches = STAGES[args.stage]
    steps, lr = args.steps or steps, args.lr or lr

    whole_clip_vae.use_whole_clip_forward()
    vae = AutoencoderKLWan.from_pretrained(args.vae).eval()
    cache = args.out / f"cache-{args.stage}.pt"
    data = cached(cache, lambda: cache_latents(vae, side, frames, scenes, per_scene, cache_seed))
    spiece = args.out / "spiece.model"
    if not spiece.exists():
        spiece.write_bytes(train_tokenizer())
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(spiece))

    modules = {"transformer": WanTransformer3DModel(**CONFIG), "transformer_2": WanTransformer3DModel(**CONFIG),
               "text_encoder": new_text_encoder(tokenizer.get_piece_size())}
    experts = [modules["transformer"], modules["transformer_2"]]
    for model in experts:
        use_training_attention(model)
    compiled = [torch.compile(model, dynamic=False) for model in experts]
    for name, state in read_states(args.start).items():
        modules[name].load_state_dict(state, strict=False)
    trained = {"high": ["transformer"], "low": ["transformer_2"]}.get(args.expert, list(modules))
    modules["text_encoder"].requires_grad_(args.expert is None)
    order = {"high": (0,), "low": (1,)}.get(args.expert, (0, 1, 0, 1, 0))

    named = [(f"{m}.{k}", p) for m in trained for k, p in modules[m].named_parameters()]
    matrices = [p for k, p in named if p.ndim == 2 and "text_encoder" not in k and "embed" not in k
                and "proj_out" not in k]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    optimizers = [Muon(matrices, lr=0.02 * lr), torch.optim.AdamW(rest, lr=1.5e-3 * lr, betas=(0.9, 0.98))]
    average = [p.detach().clone() for _, p in named]
    g = torch.Generator().manual_seed(args.seed)
    drawn = draw_weights(data["labels"])

    def draw(length: int) -> Callable[[int], Clips]:
        def clips(count: int) -> Clips:
            rows = torch.multinomial(drawn, count, generator=g).tolist()
            # The VAE is causal: the first latents of a clip are those of the shorter clip.
            clean = data["clips"][rows][:, :, :length].float()
            known = 1 + torch.multinomial(KNOWN, count, replacement=True)
            soft = torch.rand(count) < torch.where(known == 1, *SOFT)
            seen = clean.clone()
            seen[soft, :, :MOST_KNOWN] = data["soft"][rows][soft].float()
            prompts = [random.choice(NEGATIVE_PROMPTS) if random.random() < 0.125
                       else prompt_for(*data["labels"][r][:2], g) for r in rows]
            given = (torch.arange(length) < known[:, None]) & ~soft[:, None]
            return Clips(clean, condition(seen, data["grey"], known), prompts,
                         [p not in NEGATIVE_PROMPTS for p in prompts], 1 + (COPY - 1) * given.float())
        return clips

    own = {0: 0.0, 1: OWN}
    states = {(e, i): Trajectories(draw(length), batch, place_of(BOUNDARY), partial(sample_places, e), own[e])
              for e in set(order) for i, (batch, length) in enumerate(batches)}
    channels = data["channels"].view(1, -1, 1, 1, 1) ** DETAIL
    channels = channels / channels.mean()
    start, losses = time.time(), {0: [], 1: []}
    for step in itertools.count():
        if args.minutes:
            steps = max(1, round(step * 60 * args.minutes / max(1.0, time.time() - start)))
        if step >= steps:
            break
        set_lr(optimizers, warm_then_linear_decay(step, steps, flat=0.1, floor=0.01))
        expert = order[step % len(order)]
        at = states[expert, step % len(batches)]
        velocity = guided_prediction(compiled[expert], torch.cat([at.noisy, at.clips.condition], 1), at.sigma,
                                     at.clips.prompts, lambda texts: embed(tokenizer, modules["text_encoder"], texts))
        counts = channels * motion_weights(at.clips.clean) * at.clips.counts[:, None, :, None, None]
        loss = ((velocity - at.target()).pow(2) * counts * at.weight()).mean()
        at.advance(velocity)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named if p.grad is not None], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 4 == 3:
            torch._foreach_lerp_(average, [p.detach() for _, p in named], 1 - min(0.98, step / (step + 40)))
        losses[expert].append(loss.item())
        if step % 25 == 24 or step >= steps - 1:
            report = " ".join(f"{('high', 'low')[e]} {sum(v) / len(v):.4f}" for e, v in losses.items() if v)
            print(f"{step + 1} {time.time() - start:.0f} s, CPU {time.process_time():.0f} s, {report}", flush=True)
            losses = {0: [], 1: []}
            weights = {m: {} for m in trained}
            for (name, _), value in zip(named, average, strict=True):
                module, _, key = name.partition(".")
                weights[module][key] = value
            torch.save(weights, args.out / f"{args.stage}{'-' + args.expert if args.expert else ''}.pt")


if __name__ == "__main__":
    main()
