"""A measurement: a value that can be saved, loaded, and asked for laws."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from noisewise.scaling.epsilon import EpsilonPoint
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import SGD
from noisewise.scaling.noise import Noise
from noisewise.scaling.preconditioned import Preconditioned
from noisewise.scaling.sign_laws import SoftSign
from noisewise.scaling.updates import OptimizerFacts
from noisewise.scaling.warning_codes import CodedWarning, WarningCode
from noisewise.whole_files import write_text

__all__ = ["DirectPoint", "LawPoint", "Measurement", "Source", "Unit"]

FORMAT = 1
Unit = Literal["examples", "labels"]
Source = Literal["all", "norm layers"]
_MOST_BYTES = 2**26  # of a saved measurement


@dataclass(frozen=True)
class LawPoint:
    """The preconditioned law at one batch.

    Attributes:
        batch: examples per step.
        slope: E[u]'g.
        drift: E[u]'H E[u].
        diffusion: curvature of the update's noise.
        lr: best learning rate (Fieller interval), for the optimiser without momentum.
        ratio: lr over its value at the batch that the optimiser has used so far; its interval is
            much narrower than that of lr, because both come from the same data (jackknife in
            logarithms).
        noise: the diffusion with its error; `noise.needed(0.1)` is the number of probes for 10 %.
    """

    batch: float
    slope: float
    drift: float
    diffusion: float
    lr: Estimate
    ratio: Estimate
    noise: Estimate = field(default_factory=Estimate.unknown)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        estimates = {name: getattr(self, name).to_dict() for name in ("lr", "ratio", "noise")}
        return {**vars(self), **estimates}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LawPoint:
        """Make it from what `to_dict` returned; older files have no error of the noise."""
        noise = stored.get("noise")
        return cls(
            float(stored["batch"]),
            float(stored["slope"]),
            float(stored["drift"]),
            float(stored["diffusion"]),
            Estimate.from_dict(stored["lr"]),
            Estimate.from_dict(stored["ratio"]),
            Estimate.unknown() if noise is None else Estimate.from_dict(noise),
        )


@dataclass(frozen=True)
class DirectPoint:
    """The optimiser's own updates, measured without a law: N(B) = <u, g>, D(B) = u'Hu.

    Attributes:
        batch: examples that each update was made from.
        slope: N; gradient and update come from independent halves of the data.
        curvature: D; the Hessian comes from data that neither half contains.
        lr: N / D (Fieller interval), for the optimiser without momentum.
    """

    batch: float
    slope: Estimate
    curvature: Estimate
    lr: Estimate


@dataclass(frozen=True)
class Measurement:
    """Noise, curvature and updates of one training at one time.

    Attributes:
        noise: |g|^2, tr Sigma and B_simple, of all parameters and of each parameter tensor.
        b_noise: tr(Sigma H) / g'Hg in examples; unknown if the curvature was not measured.
        optimizer: settings of the optimiser.
        batch: examples per step that the optimiser has used so far; None: not known.
        size: examples in a micro-batch.
        num_parameters: number of trainable parameters.
        curvature: "trace_h", "trace_sigma_h", "g_h_g", "sign_noise" (curvature of sign(noise)),
            "sign_slope" and "sign_curvature" (of the soft sign of the mean gradient),
            "update_curvature" (of the optimiser's updates from whole batches, if there are two),
            "sharpness" (lambda_max of P H, for SGD and if epsilon exceeds most of sqrt(v)).
        curve: the preconditioned law at several batches.
        direct: the optimiser's own updates, at the batches with enough data.
        epsilon_share: share of coordinates with sqrt(v) below epsilon; nan without sqrt(v).
        clipped_share: share of watched steps whose gradient was clipped; nan: not watched.
        warnings: sentences about this measurement, for people.
        warning_codes: the code of each warning, in the same order, for programs.
        unit: what `batch`, `size` and the noise scales count.
        labels_per_example: labels of one example, if labels are counted; nan: not known.
        counted: what the batch was counted from, in words; "" if it was given.
        begun: share of the training before the measurement began, 0 to 1; nan: not known.
        ended: share of the training when it ended; nan: not known.
        scales: B_simple in the thirds of a watched training; empty: measured at one time.
        source: "norm layers" if only the parameters of normalisation layers were measured.
        epsilons: updates with other epsilons, of an optimiser like Adam.
    """

    noise: Noise
    b_noise: Estimate
    optimizer: OptimizerFacts
    batch: float | None
    size: float
    num_parameters: int
    curvature: dict[str, Estimate] = field(default_factory=dict)
    curve: tuple[LawPoint, ...] = ()
    direct: tuple[DirectPoint, ...] = ()
    epsilon_share: float = math.nan
    clipped_share: float = math.nan
    warnings: tuple[str, ...] = ()
    warning_codes: tuple[WarningCode, ...] = ()
    unit: Unit = "examples"
    labels_per_example: float = math.nan
    counted: str = ""
    begun: float = math.nan
    ended: float = math.nan
    scales: tuple[float, ...] = ()
    source: Source = "all"
    epsilons: tuple[EpsilonPoint, ...] = ()

    def in_examples(self) -> Measurement:
        """Return the same measurement in examples, if it counts labels.

        Raises:
            ValueError: if the labels of an example are not known.
        """
        if self.unit == "examples":
            return self
        if not self.labels_per_example > 0:
            raise ValueError(
                "This measurement counts labels, and does not know how many labels an example has: "
                "give the batch in labels too (unit='labels', --unit labels)."
            )
        part = 1 / self.labels_per_example
        noise = replace(
            self.noise,
            trace_sigma=self.noise.trace_sigma.scaled(part),
            b_simple=self.noise.b_simple.scaled(part),
        )
        return replace(
            self,
            noise=noise,
            b_noise=self.b_noise.scaled(part),
            batch=None if self.batch is None else self.batch * part,
            size=self.size * part,
            curve=tuple(replace(p, batch=p.batch * part) for p in self.curve),
            direct=tuple(replace(p, batch=p.batch * part) for p in self.direct),
            scales=tuple(scale * part for scale in self.scales),
            unit="examples",
        )

    def coded_warnings(self) -> tuple[CodedWarning, ...]:
        """Return (code, sentence) of each warning."""
        uncoded: tuple[WarningCode, ...] = ("uncoded",) * len(self.warnings)
        codes = self.warning_codes or uncoded
        return tuple(zip(codes, self.warnings, strict=True))

    @property
    def g2(self) -> Estimate:
        """Squared norm of the true gradient."""
        return self.noise.g2

    @property
    def trace_sigma(self) -> Estimate:
        """Noise of one example's gradient."""
        return self.noise.trace_sigma

    @property
    def b_simple(self) -> Estimate:
        """Tr Sigma / |g|^2 in examples."""
        return self.noise.b_simple

    @property
    def edge(self) -> Estimate:
        """Learning rate at the edge of stability, in the optimiser's units; maybe unknown.

        Source: `stability`.
        """
        found = self.curvature.get("sharpness", Estimate.unknown())
        if not (found.known and found.value > 0):
            return Estimate.unknown()
        times = self.optimizer.edge_times_sharpness
        low = times / found.high if found.high > 0 else 0.0
        return Estimate(times / found.value, low, times / found.low if found.low > 0 else math.inf)

    def preconditioned(self) -> Preconditioned | None:
        """Return the measured law; None if the curvature was not measured."""
        if len(self.curve) < 2:
            return None
        return Preconditioned(
            tuple(p.batch for p in self.curve),
            tuple(p.slope for p in self.curve),
            tuple(p.drift for p in self.curve),
            tuple(p.diffusion for p in self.curve),
        )

    def sgd(self) -> SGD | None:
        """Return SGD's law with B_noise; None if the data do not determine it."""
        g_h_g = self.curvature.get("g_h_g", Estimate.unknown())
        if not (self.b_noise.bounded and g_h_g.value > 0 and self.g2.value > 0):
            return None
        g2 = self.g2.value
        return SGD(g2 / g_h_g.value, self.b_noise.value, g2**2 / (2 * g_h_g.value))

    def soft_sign(self) -> SoftSign | None:
        """Return the mean-field form with the measured numbers; None if they are missing.

        It assumes independent coordinates and serves only for comparison.
        """
        trace = self.curvature.get("trace_h", Estimate.unknown())
        slope = self.curvature.get("sign_slope", Estimate.unknown())
        quadratic = self.curvature.get("sign_curvature", Estimate.unknown())
        signal = self.g2.value + self.num_parameters * self.optimizer.epsilon**2
        if not (slope.known and quadratic.known and trace.value > 0 and signal > 0):
            return None
        return SoftSign(slope.value, quadratic.value, trace.value, self.trace_sigma.value / signal)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        share = {
            name: getattr(self, name)
            for name in ("epsilon_share", "clipped_share", "labels_per_example", "begun", "ended")
        }
        return {
            "noisewise_measurement": FORMAT,
            "noise": self.noise.to_dict(),
            "b_noise": self.b_noise.to_dict(),
            "optimizer": self.optimizer.to_dict(),
            "batch": self.batch,
            "size": self.size,
            "num_parameters": self.num_parameters,
            "curvature": {name: value.to_dict() for name, value in self.curvature.items()},
            "curve": [point.to_dict() for point in self.curve],
            "direct": [
                {
                    "batch": p.batch,
                    "slope": p.slope.to_dict(),
                    "curvature": p.curvature.to_dict(),
                    "lr": p.lr.to_dict(),
                }
                for p in self.direct
            ],
            **{name: None if math.isnan(value) else value for name, value in share.items()},
            "warnings": list(self.warnings),
            "warning_codes": list(self.warning_codes),
            "unit": self.unit,
            "counted": self.counted,
            "scales": list(self.scales),
            "source": self.source,
            "epsilons": [[p.epsilon, p.length, p.share] for p in self.epsilons],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Measurement:
        """Make it from what `to_dict` returned.

        Raises:
            ValueError: if it is not a measurement, or has a newer format.
        """
        if stored.get("noisewise_measurement") != FORMAT:
            raise ValueError(
                "This is not a measurement of noisewise.scaling, or a newer version wrote it."
            )

        def read(name: str) -> float:
            return math.nan if stored.get(name) is None else float(stored[name])

        try:
            return cls(
                Noise.from_dict(stored["noise"]),
                Estimate.from_dict(stored["b_noise"]),
                OptimizerFacts.from_dict(stored["optimizer"]),
                stored["batch"],
                float(stored["size"]),
                int(stored["num_parameters"]),
                {name: Estimate.from_dict(value) for name, value in stored["curvature"].items()},
                tuple(LawPoint.from_dict(point) for point in stored["curve"]),
                tuple(
                    DirectPoint(
                        point["batch"],
                        *(Estimate.from_dict(point[n]) for n in ("slope", "curvature", "lr")),
                    )
                    for point in stored["direct"]
                ),
                read("epsilon_share"),
                read("clipped_share"),
                tuple(stored["warnings"]),
                _codes(stored),
                _unit_of(stored),
                read("labels_per_example"),
                str(stored.get("counted", "")),
                read("begun"),
                read("ended"),
                tuple(float(scale) for scale in stored.get("scales", ())),
                stored.get("source", "all"),
                tuple(EpsilonPoint(*map(float, point)) for point in stored.get("epsilons", ())),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"The measurement is damaged ({error!r}): measure again.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; an existing file stays intact until the new one is complete.

        Example:
            >>> import tempfile
            >>> noise = Noise(*[Estimate(1.0, 0.5, 2.0)] * 3, num_micro=8)
            >>> facts = OptimizerFacts("SGD", "sgd", 0.1)
            >>> one = Measurement(noise, Estimate.unknown(), facts, 64, 8, 100)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     one.save(folder + "/m.json")
            ...     Measurement.load(folder + "/m.json").b_simple == one.b_simple
            True
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        write_text(Path(path), text + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Measurement:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is missing or is not a measurement.
        """
        try:
            file = Path(path)
            if file.is_dir():
                raise ValueError(
                    "it is a folder; name the file in it, such as noise.json of a run (a short "
                    "training measures no noise and has none)"
                )
            if not file.exists():
                raise ValueError("it does not exist; watch a training, or calibrate, and save it")
            if file.exists() and not (file.is_file() and file.stat().st_size <= _MOST_BYTES):
                raise ValueError(f"it is not a file of at most {_MOST_BYTES:,} bytes")
            stored = json.loads(file.read_text(encoding="utf-8"))
        except RecursionError:
            raise ValueError(
                f"{path} cannot be read as a measurement: it has too many brackets inside brackets"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a measurement: {error}") from error
        if not isinstance(stored, dict):
            raise ValueError(f"{path} is not a measurement of noisewise.scaling.")
        try:
            return cls.from_dict(stored)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _codes(stored: Mapping[str, Any]) -> tuple[WarningCode, ...]:
    """The codes of a file's warnings; files of older versions have only the sentences."""
    codes, sentences = stored.get("warning_codes", ()), stored["warnings"]
    if len(codes) == len(sentences):
        return tuple(codes)
    first = "Not identifiable yet"  # these versions began that warning so
    return tuple("noise_not_known" if s.startswith(first) else "uncoded" for s in sentences)


def _unit_of(stored: Mapping[str, Any]) -> Unit:
    """What a file counts; older versions only warned of labels."""
    older = "labels" if "counted_in_labels" in stored.get("warning_codes", ()) else "examples"
    unit = stored.get("unit", older)
    if unit not in get_args(Unit):
        raise ValueError(f"unit {unit!r}")
    return unit
