"""A real training in a process of its own, to be killed, and to be compared with a whole one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiny import blobs

# Nets of a few thousand weights, and a checkpoint after every step: kills often fall into saves.
SETTINGS = {
    "train": {
        "widths": [4, 4],
        "batch": 16,
        "threads": 1,
        "checkpoint_seconds": 1e-9,
        "recipe": {"batch": 16, "distance_images": 32, "sampler_images": 32, "dropout": 0.1},
    },
    "distill": {
        "batch": 16,
        "threads": 1,
        "checkpoint_seconds": 1e-9,
        "recipe": {"batch": 16, "distance_images": 32, "two_call_sigmas": [0.3]},
    },
    "adapt": {
        "batch": 16,
        "threads": 1,
        "samples": 32,
        "recipe": {"distance_images": 32, "num_steps": 3, "sampler_images": 0},
    },
}
_UNTIMED = ("seconds", "milliseconds", "teacher_steps")


@dataclass(frozen=True)
class Workshop:
    """A folder with pictures and settings in which runs are trained by the command line."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Workshop:
        """Write pictures and settings."""
        root.mkdir(parents=True, exist_ok=True)
        np.savez(root / "blobs.npz", images=blobs(64, 8), labels=np.arange(64) % 2)
        for name, values in SETTINGS.items():
            (root / f"{name}.json").write_text(json.dumps(values))
        return cls(root)

    def command(self, verb: str, run: Path, budget: str) -> list[str]:
        """The command line of a stage."""
        words = [sys.executable, "-m", "noisewise", verb]
        words += [str(self.root / "blobs.npz"), "--out"] if verb == "train" else []
        settings = ["--config", str(self.root / f"{verb}.json")]
        return [*words, str(run), "--budget", budget, *settings]

    def start(self, verb: str, run: Path, budget: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            self.command(verb, run, budget), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def finish(self, verb: str, run: Path, budget: str) -> str:
        """Run it to its end; returns what it said on stderr."""
        process = self.start(verb, run, budget)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def kill(
        self, verb: str, run: Path, budget: str, seconds: float, after_begun: bool = False
    ) -> bool:
        """Kill it at an instant; False if it had ended before.

        Args:
            verb: train or distill.
            run: its folder.
            budget: of the stage.
            seconds: from its start, so that reading, caching and beginning are hit as well.
            after_begun: count them from its first line in the log.
        """
        log, before = run / "log.jsonl", 0
        if log.exists():
            before = log.stat().st_size
        with self.start(verb, run, budget) as process:
            try:
                while (
                    after_begun
                    and process.poll() is None
                    and not (log.exists() and log.stat().st_size != before)
                ):
                    time.sleep(0.002)
                time.sleep(seconds)
            finally:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        return process.returncode == -signal.SIGKILL


def traces(run: Path, stage: str) -> dict[str, object]:
    """All that has to be equal: weights, sheets, the log but for its clock and its resumes.

    Of files there are digests: a difference must not fill the screen.
    """
    weights = _digest(run / stage / "model.safetensors")
    sheets = {p.name: _digest(p) for p in sorted((run / "samples").glob(f"{stage}-*.png"))}
    lines = []
    for line in (run / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        if values["stage"] == stage and values.get("kind") != "resumed":
            lines.append({k: v for k, v in values.items() if k not in _UNTIMED})
    return {"weights": weights, "sheets": sheets, "log": lines}


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file but the lock, which holds the number of the last process."""
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def leftovers(run: Path) -> list[str]:
    """Temporary files, and checkpoints beyond the promised number."""
    found = [p.name for p in run.rglob(".*") if p.name not in (".lock", ".gitignore")]
    for stage in ("teacher", "generator"):
        kept = sorted(p.name for p in (run / "checkpoints").glob(f"{stage}-[0-9]*"))
        found += kept[2:]
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
