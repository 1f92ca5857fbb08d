"""Move two words of the demo's text encoder apart, for experts that cannot tell them from each other.

usage: part_words.py SPIECE_MODEL OUT_PT PT [PT ...] [--words in out] [--steps 300]

"zooms in" and "zooms out" differ in one word, and after the first stage the experts' text projection had all but lost
the difference: their values differed by a tenth of what "left" and "right" did, and both prompts gave one clip. Here
the two words' embeddings, and nothing else, learn to differ in every value that the experts' cross-attention makes of
them, and to stay away from the other prompts' last words. PT: what train_experts.py wrote, later ones winning; OUT_PT
gets the text encoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from clips import MOTIONS, ZOOM
from diffusers import WanTransformer3DModel
from text import embed, new_text_encoder
from train_experts import CONFIG, read_states

ENOUGH, OTHERS_ENOUGH = 2.0, 1.0  # of the other words' mean value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spiece")
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--words", nargs=2, default=("in", "out"))
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=args.spiece)
    states = read_states(args.weights)
    encoder = new_text_encoder(tokenizer.get_piece_size()).eval().requires_grad_(False)
    encoder.load_state_dict(states["text_encoder"], strict=False)
    experts = [WanTransformer3DModel(**CONFIG).requires_grad_(False) for _ in range(2)]
    for expert, name in zip(experts, ("transformer", "transformer_2"), strict=True):
        expert.load_state_dict(states[name])

    def values(prompts: list[str]) -> list[torch.Tensor]:
        """What each block of each expert makes of the prompts' last words, (prompts, width) each."""
        rows, last = torch.arange(len(prompts)), [len(tokenizer.encode(p)) - 1 for p in prompts]
        text = embed(tokenizer, encoder, prompts)
        projected = [expert.condition_embedder.text_embedder(text)[rows, last] for expert in experts]
        return [block.attn2.to_v(p) for expert, p in zip(experts, projected, strict=True) for block in expert.blocks]

    ids = torch.tensor([tokenizer.encode(f"zoom {word}")[-1] for word in args.words])
    table = encoder.shared.weight.detach().clone()
    rows = torch.nn.Parameter(table[ids].clone())
    longest = table.norm(dim=1).median()
    others = values([texts[0] for motion, texts in MOTIONS.items() if motion.startswith(("pan", "ball", "tint"))])
    phrases = [[p.format(word) for p in ZOOM] for word in args.words]
    encoder.encoder.embed_tokens.register_forward_hook(
        lambda _, given, __: F.embedding(given[0], table.index_put((ids,), rows)))
    optimizer = torch.optim.Adam([rows], lr=0.05)
    for step in range(args.steps):
        loss = torch.zeros(())
        for one, two, rest in zip(*map(values, phrases), others, strict=True):
            scale = rest.norm(dim=1).mean()
            loss = loss - ((one - two).norm(dim=1) / scale).clamp(max=ENOUGH).log().mean()
            for side in (one, two):
                apart = (side[:, None] - rest[None]).norm(dim=-1) / scale
                loss = loss - 0.3 * apart.clamp(max=OTHERS_ENOUGH).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            rows.mul_((longest / rows.norm(dim=1, keepdim=True)).clamp(max=1))
        if step % 50 == 49:
            print(f"{step + 1} loss {loss.item():.3f}", flush=True)
    states["text_encoder"]["shared.weight"] = table.index_put((ids,), rows.detach())
    torch.save({"text_encoder": states["text_encoder"]}, args.out)


if __name__ == "__main__":
    main()
