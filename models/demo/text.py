"""The text encoder, taught on its own to read every fact of a caption.

A CLIP text model trained only through the denoiser learns to tell shapes very late, if at all.
Reading is easy to teach directly: linear heads on the hidden states predict each fact of the
caption. The heads are thrown away, the encoder stays as it is while the denoiser learns.
"""

import random
import time
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.demo.captions import FACTS, NOTHING, Caption, paraphrase
from models.demo.tokens import MAX_TOKENS
from models.demo.wording import UNSAID, stray_word
from models.demo.world import sample_spec

TEXT_WIDTH: Final = 128
_LAYERS: Final = 2
_BATCH: Final = 96


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text model of the demo's size over ``tokenizer``."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        hidden_act="quick_gelu",
    )
    return CLIPTextModel(config)


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Ids (n, MAX_TOKENS), padded and truncated as the pipeline does it."""
    batch = tokenizer(
        texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    ids: Tensor = batch.input_ids
    return ids


def random_caption(rng: random.Random) -> Caption:
    """A caption of a random training spec; now and then nothing at all, or stray words alone."""
    share = rng.random()
    if share < 0.02:
        return NOTHING
    if share < 0.05:
        return Caption(" ".join(stray_word(rng) for _ in range(rng.randint(1, 6))), {})
    return paraphrase(sample_spec(rng), rng)


class FactHeads(nn.Module):
    """Linear readers of every fact, from one vector of the text encoder's width."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(TEXT_WIDTH, len(values)) for name, values in FACTS.items()}
        )

    def forward(self, vector: Tensor) -> dict[str, Tensor]:
        return {name: head(vector) for name, head in self.heads.items()}


def fact_targets(captions: list[Caption]) -> dict[str, Tensor]:
    """For each fact the index of its value in each caption."""
    return {
        name: torch.tensor([values.index(c.facts.get(name, UNSAID)) for c in captions])
        for name, values in FACTS.items()
    }


def _reading_loss(
    states: Tensor, heads: tuple[FactHeads, FactHeads], captions: list[Caption]
) -> Tensor:
    """Cross-entropy summed over facts, read from the mean state and from the last one."""
    targets = fact_targets(captions)
    total = torch.zeros(())
    for head, vector in zip(heads, (states.mean(1), states[:, -1]), strict=True):
        for name, logits in head(vector).items():
            total = total + F.cross_entropy(logits, targets[name])
    return total


def train_text_encoder(
    tokenizer: CLIPTokenizer, minutes: float, seed: int = 0
) -> tuple[CLIPTextModel, float]:
    """Teach a new text encoder to read captions for ``minutes``.

    Returns the encoder and the share of unseen captions of which it read every fact.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder = new_text_encoder(tokenizer)
    heads = (FactHeads(), FactHeads())
    parameters = [*encoder.parameters(), *heads[0].parameters(), *heads[1].parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-3)
    started, step = time.monotonic(), 0
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * (1.02 - progress)
        captions = [random_caption(rng) for _ in range(_BATCH)]
        states = encoder(token_ids(tokenizer, [c.text for c in captions])).last_hidden_state
        loss = _reading_loss(states, heads, captions)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"text step {step} loss {loss.item():.3f}", flush=True)
    share, misread = reading_score(encoder, heads[0], tokenizer, random.Random(seed + 1))
    print(f"text encoder reads all facts of {share:.3f} captions; errors by fact: {misread}")
    return encoder, share


@torch.no_grad()
def reading_score(
    encoder: CLIPTextModel, head: FactHeads, tokenizer: CLIPTokenizer, rng: random.Random
) -> tuple[float, dict[str, float]]:
    """Share of 1000 new captions read without an error, and the error rate of each fact."""
    captions = [random_caption(rng) for _ in range(1000)]
    encoder.eval()
    states = encoder(token_ids(tokenizer, [c.text for c in captions])).last_hidden_state
    targets = fact_targets(captions)
    right = {n: logits.argmax(1) == targets[n] for n, logits in head(states.mean(1)).items()}
    share = torch.stack(list(right.values())).all(0).float().mean().item()
    return share, {n: round(1 - r.float().mean().item(), 3) for n, r in right.items()}
