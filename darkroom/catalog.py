"""Which models may be asked for, where each runs, and what it costs.

One YAML file, read by both tiers (a ConfigMap in the cluster). `load_catalog` refuses a file that
cannot work and names the entry. A job goes to the first pool, in file order, that serves its model
and whose ``max_gpu_seconds`` covers its estimate: put short pools first, and long jobs never block
short ones.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from darkroom.errors import NoPoolForJob, SettingsError, UnknownModel
from darkroom.families import FAMILIES, FLOW_SCHEDULERS, FamilyName
from darkroom.generation import (
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_SIDE_PIXELS,
    MAX_STEPS,
    SIDE_MULTIPLE,
    ClassName,
    Generation,
    Guidance,
    ImageCount,
    ModelName,
    Side,
    Steps,
)

Kind = Literal["text_to_image", "image_to_image", "inpainting"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelDefaults(_Entry):
    """What a request that leaves a field out gets. Sides in pixels."""

    width: Side = 512
    height: Side = 512
    num_inference_steps: Steps = 25
    guidance_scale: Guidance = 7.5


class ModelLimits(_Entry):
    """The most that may be asked of this model. Sides in pixels."""

    max_side: Side = MAX_SIDE_PIXELS
    max_pixels: int = Field(default=MAX_SIDE_PIXELS**2, gt=0)
    max_steps: Steps = MAX_STEPS
    max_guidance_scale: Guidance = MAX_GUIDANCE
    max_images: ImageCount = MAX_IMAGES


class LoraSource(_Entry):
    """An adapter that the model accepts: a file or hub repository, pinned by digest."""

    name: ModelName
    source: str
    weight_name: str | None = None
    revision: str | None = None
    sha256: Sha256 | None = None


class ModelOptions(_Entry):
    """How the pipeline is run: less memory for more time, or the other way; see docs/models.md.

    ``cpu_offload`` keeps weights in host memory and brings to the device one component at a time
    (``model``) or one layer at a time (``sequential``).
    """

    channels_last: bool = False
    compile: bool = False
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    cpu_offload: Literal["none", "model", "sequential"] = "none"

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.compile and self.cpu_offload == "sequential":
            raise ValueError("compile does not go with cpu_offload: sequential")
        return self


class Model(_Entry):
    """One model. ``source`` is a folder (relative to the catalog file) or a hub repository.

    ``family`` says which pipelines run it (`darkroom.families`); without it the worker goes by the
    files alone, and what they cannot do is found out there.
    ``seconds_per_megapixel_step`` is the measured time of one denoising step of one image of one
    megapixel on the pool's device; it turns a request into GPU seconds.
    """

    name: ModelName
    title: str = ""
    source: str
    revision: str = Field(min_length=1, description="Pinned commit or digest of the weights.")
    family: FamilyName | None = None
    kinds: tuple[Kind, ...] = ("text_to_image",)
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    variant: str | None = None
    scheduler: ClassName = "DPMSolverMultistepScheduler"
    schedulers: tuple[ClassName, ...] = ()
    defaults: ModelDefaults = ModelDefaults()
    limits: ModelLimits = ModelLimits()
    options: ModelOptions = ModelOptions()
    loras: tuple[LoraSource, ...] = ()
    seconds_per_megapixel_step: float = Field(gt=0)
    load_seconds: float = Field(30.0, ge=0)
    licence: str

    def schedulers_allowed(self) -> tuple[str, ...]:
        """The scheduler classes that a request may name; the default is always among them."""
        return tuple(dict.fromkeys((self.scheduler, *self.schedulers)))

    def gpu_seconds(self, generation: Generation) -> float:
        """Estimate the device time: seconds per megapixel-step x megapixels x steps x images."""
        megapixels = generation.width * generation.height / 1e6
        steps = generation.num_inference_steps * generation.num_images
        return self.seconds_per_megapixel_step * megapixels * steps

    @property
    def side_multiple(self) -> int:
        """What both sides of a picture must be a multiple of, in pixels."""
        return FAMILIES[self.family].side_multiple if self.family else SIDE_MULTIPLE

    @model_validator(mode="before")
    @classmethod
    def _flow_has_its_own_scheduler(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "scheduler" in data:
            return data
        family = FAMILIES.get(data.get("family", ""))
        is_flow = family is not None and family.is_flow
        return {**data, "scheduler": "FlowMatchEulerDiscreteScheduler"} if is_flow else data

    @model_validator(mode="after")
    def _fits_its_family(self) -> Self:
        if self.family is None:
            return self
        family = FAMILIES[self.family]
        for kind in self.kinds:
            if kind not in family.pipelines:
                raise ValueError(f"kinds: {self.family} has no {kind}")
        for name in self.schedulers_allowed():
            if (name in FLOW_SCHEDULERS) != family.is_flow:
                raise ValueError(f"schedulers: {name} cannot run {self.family}")
        for side in ("width", "height"):
            if getattr(self.defaults, side) % family.side_multiple:
                multiple = family.side_multiple
                raise ValueError(f"defaults.{side} must be a multiple of {multiple}")
        if self.options.attention_slicing and not family.slices_attention:
            raise ValueError(f"options.attention_slicing: {self.family} does not offer it")
        if self.options.channels_last and not family.takes_channels_last:
            raise ValueError(f"options.channels_last: {self.family} does not offer it")
        return self

    @model_validator(mode="after")
    def _defaults_are_within_limits(self) -> Self:
        asked, most = self.defaults, self.limits
        if max(asked.width, asked.height) > most.max_side:
            raise ValueError(f"defaults: a side is over limits.max_side ({most.max_side})")
        if asked.width * asked.height > most.max_pixels:
            raise ValueError(f"defaults: the picture is over limits.max_pixels ({most.max_pixels})")
        if asked.num_inference_steps > most.max_steps:
            raise ValueError(f"defaults.num_inference_steps is over max_steps ({most.max_steps})")
        return self


class Replicas(_Entry):
    """How many workers a pool may have."""

    min: int = Field(default=0, ge=0)
    max: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"replicas.min ({self.min}) is over replicas.max ({self.max})")
        return self


class Pool(_Entry):
    """Workers of one kind behind one queue. ``concurrency`` is what one replica runs at once.

    ``batch_speedup`` is how many times as fast that many jobs are made together as one by one; a
    backlog's time is estimated by it.
    """

    name: ModelName
    models: tuple[ModelName, ...] = Field(min_length=1)
    max_gpu_seconds: float = Field(gt=0)
    gpu: str = "none"
    spot: bool = False
    replicas: Replicas = Replicas()
    concurrency: int = Field(1, ge=1, le=64)
    batch_speedup: float = Field(1.0, ge=1, le=64)
    price_per_hour_usd: float = Field(0.0, ge=0)

    def cost_usd(self, gpu_seconds: float) -> float:
        """What ``gpu_seconds`` on this pool cost, in US dollars."""
        return gpu_seconds / 3600 * self.price_per_hour_usd

    @model_validator(mode="after")
    def _gain_is_possible(self) -> Self:
        if self.batch_speedup > self.concurrency:
            raise ValueError(
                f"batch_speedup ({self.batch_speedup:g}) is over concurrency ({self.concurrency})"
            )
        return self


class Catalog(_Entry):
    """All models and pools.

    ``folder`` is where relative sources start, ``models_dir`` where pulled models lie.
    """

    version: Literal[1] = 1
    default_model: ModelName
    models: tuple[Model, ...] = Field(min_length=1)
    pools: tuple[Pool, ...] = Field(min_length=1)
    folder: Path = Field(Path(), exclude=True)
    models_dir: Path | None = Field(None, exclude=True)

    def model(self, name: str) -> Model:
        """Return the model of that name. Raises `UnknownModel`."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise UnknownModel(f"model is not in the catalog; it has: {known}", target="model")

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises `SettingsError`."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        known = ", ".join(pool.name for pool in self.pools)
        raise SettingsError(f"pool {name!r} is not in the catalog; it has: {known}", target="pool")

    def route(self, model: str, gpu_seconds: float) -> Pool:
        """Return the first pool that serves ``model`` for that long. Raises `NoPoolForJob`."""
        serving = [pool for pool in self.pools if model in pool.models]
        for pool in serving:
            if gpu_seconds <= pool.max_gpu_seconds:
                return pool
        most = max(pool.max_gpu_seconds for pool in serving)
        raise NoPoolForJob(
            f"the job is estimated at {gpu_seconds:.0f} GPU seconds; the limit for model {model}"
            f" is {most:.0f}: ask for fewer pixels, steps or images",
            target="num_inference_steps",
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.models]
        for group, listed in (("models", names), ("pools", [pool.name for pool in self.pools])):
            if len(set(listed)) != len(listed):
                raise ValueError(f"{group}: a name stands twice")
        if self.default_model not in names:
            raise ValueError(f"default_model {self.default_model!r} is not among the models")
        for pool in self.pools:
            if unknown := set(pool.models) - set(names):
                raise ValueError(f"pool {pool.name}: unknown model {', '.join(sorted(unknown))}")
        if orphans := set(names) - {name for pool in self.pools for name in pool.models}:
            raise ValueError(f"no pool serves model {', '.join(sorted(orphans))}")
        return self


def load_catalog(path: Path, models_dir: Path | None = None) -> Catalog:
    """Read and check a catalog file; ``models_dir`` is where models were pulled to, if anywhere.

    Raises `SettingsError` that names the entry at fault.
    """
    try:
        data = yaml.safe_load(path.read_text())
        ours = {"folder": path.resolve().parent, "models_dir": models_dir}
        return Catalog.model_validate({**data, **ours})
    except OSError as error:
        raise SettingsError(
            f"catalog {path}: {error.strerror}", target="DARKROOM_CATALOG"
        ) from error
    except (yaml.YAMLError, TypeError) as error:
        raise SettingsError(f"catalog {path}: not a YAML map", target="DARKROOM_CATALOG") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "catalog"
        raise SettingsError(f"catalog {path}: {where}: {first['msg']}", target=where) from None
