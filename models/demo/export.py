"""Put the trained parts together as an ordinary diffusers folder."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from models.demo.denoiser import new_scheduler
from models.demo.training import averaged_denoiser

_TOKENIZER_FILES: Final = ("vocab.json", "merges.txt", "special_tokens_map.json")
# What other schedulers need when one is made from this one's configuration.
_FOR_OTHER_SCHEDULERS: Final = {"clip_sample": False, "set_alpha_to_one": False}


def assemble(work: Path, checkpoint: Path) -> StableDiffusionPipeline:
    """The pipeline, in single precision, from the parts that the stages left in ``work``."""
    return StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=averaged_denoiser(checkpoint).eval(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Path, checkpoint: Path, folder: Path) -> str:
    """Write the half-precision pipeline into ``folder``, in place of what was there.

    Returns the folder's revision.
    """
    if folder.exists():
        shutil.rmtree(folder)
    pipe = assemble(work, checkpoint).to(dtype=torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True)
    for name in _TOKENIZER_FILES:  # transformers 5 writes tokenizer.json alone, 4 reads these
        shutil.copy(work / "tokenizer" / name, folder / "tokenizer" / name)
    _edit(folder / "scheduler" / "scheduler_config.json", _FOR_OTHER_SCHEDULERS)
    # AutoencoderTiny writes this key for the pipeline's sake and warns of it when it reads it back.
    _drop(folder / "vae" / "config.json", "block_out_channels")
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            _drop(path, "_name_or_path")
        path.chmod(
            0o755 if path.is_dir() else 0o644
        )  # safetensors writes files for the owner alone
    return revision(folder)


def _edit(path: Path, changes: dict[str, bool]) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes, indent=2) + "\n")


def _drop(path: Path, key: str) -> None:
    """Drop ``key`` from the JSON object in ``path``, if it is there."""
    config = json.loads(path.read_text())
    if isinstance(config, dict) and config.pop(key, None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n")


def revision(folder: Path) -> str:
    """First 16 hex digits of a SHA-256 over the folder's file names and contents, in order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def size_bytes(folder: Path) -> int:
    """Size of all files under ``folder``."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
