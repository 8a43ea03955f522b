"""What a model folder's config.json says: the net, the pictures, and how to sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from noisewise.diffusion import Prediction

FORMAT = 2
READABLE = (1, FORMAT)


@dataclass(frozen=True)
class SamplerSettings:
    """How a teacher is sampled: follow Karras' levels down to sigma_min, then denoise once.

    Attributes:
        name: heun (2 num_steps - 1 calls) or ddim (num_steps calls).
        sigma_max: first noise level.
        sigma_min: last noise level; what is below it, one denoise removes.
        num_steps: number of noise levels.
        rho: spacing of the levels; 7 is EDM's.
        reason: why these values.
    """

    name: Literal["heun", "ddim"] = "heun"
    sigma_max: float = 40.0
    sigma_min: float = 0.3
    num_steps: int = 5
    rho: float = 7.0
    reason: str = "default: best of sigma_min 0.002, 0.1, 0.3, 0.6 on Fashion-MNIST"

    @property
    def calls(self) -> int:
        """Network calls a picture.

        Example:
            >>> SamplerSettings(num_steps=5).calls
            9
        """
        return 2 * self.num_steps - 1 if self.name == "heun" else self.num_steps

    def steps_for(self, calls: int) -> int:
        """Return num_steps that take `calls` network calls.

        Raises:
            ValueError: if there are none.
        """
        if calls < 1:
            raise ValueError(f"{calls} network calls draw nothing; use 1 or more")
        if self.name == "ddim":
            return calls
        if calls % 2 == 0:
            raise ValueError(
                f"heun takes an odd number of network calls; use {calls - 1} or {calls + 1}"
            )
        return (calls + 1) // 2


@dataclass(frozen=True)
class ModelConfig:
    """What config.json of a model folder says."""

    kind: Literal["teacher", "generator"]
    net: dict[str, Any]
    sigma_data: float
    size: int
    channels: int
    noise: dict[str, Any]
    prediction: Prediction | Literal["denoiser"] = "edm"
    classes: tuple[str, ...] = ()
    label_histogram: tuple[int, ...] = ()
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    sigma_init: float | None = None
    two_call_sigma: float | None = None
    sigma_range: tuple[float, float] | None = None
    stats: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: object = "config.json") -> ModelConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if it is of another format or a value is missing.
        """
        if not isinstance(values, dict) or values.get("format") not in READABLE:
            raise ValueError(f"{where} is no model of this version of noisewise (format {FORMAT})")
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        try:
            given["sampler"] = SamplerSettings(**given.get("sampler", {}))
            for name in ("classes", "label_histogram"):
                given[name] = tuple(given.get(name, ()))
            if given.get("sigma_range") is not None:
                low, high = given["sigma_range"]
                given["sigma_range"] = (float(low), float(high))
            return cls(**given)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{where} does not describe a model: {error}") from error
