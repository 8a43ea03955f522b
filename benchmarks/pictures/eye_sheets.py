"""Rankings by eye: sheets on which nobody can know what is what, and the answers as data.

A rank sheet has one row for each set of pictures; the rows are shuffled and named by letters. Order
the letters from most to least real. A mix sheet has real and made pictures, half and half, shuffled
and numbered. Write down the numbers that you take for made. `judge_panel --sheets OUT` writes the
sheets into OUT and their keys into OUT/keys. Look at the sheets alone, several times if you can,
and give the answers to this program, which stores them with the keys in eye_rankings.json:

    python -m benchmarks.pictures.eye_sheets OUT --rank garments_rank_0=CADB --rank ...
    python -m benchmarks.pictures.eye_sheets OUT --made garments_mix_3=3,17,20
"""

from __future__ import annotations

import argparse
import json
import math
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.shared import harness, ours, summaries

ANSWERS = Path(__file__).with_name("eye_rankings.json")
KEYS = "keys"
REAL = "real"
_GAP, _MARGIN, _GROUND = 4, 22, (128, 128, 128)
_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_COLUMNS = 8  # of a mix sheet


# ------------------------------------------------------------------------------------------ writing


def _pixels(images: Tensor, side: int) -> list[Image.Image]:
    """Pictures enlarged by a whole number to about `side` pixels, RGB."""
    found = [
        Image.fromarray(p.squeeze(2) if p.shape[2] == 1 else p) for p in ours.to_pixels(images)
    ]
    times = max(1, round(side / images.shape[2]))
    size = (images.shape[3] * times, images.shape[2] * times)
    return [picture.convert("RGB").resize(size, Image.Resampling.NEAREST) for picture in found]


def _sheet(rows: list[list[Image.Image]], names: list[list[str]], path: Path) -> None:
    """Lay pictures in rows; a name is written left of each picture that has one."""
    width, height = rows[0][0].size
    step = (width + _GAP + _MARGIN, height + _GAP)
    size = (step[0] * max(map(len, rows)) + _GAP, step[1] * len(rows) + _GAP)
    image = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(image)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            left, top = _GAP + c * step[0], _GAP + r * step[1]
            image.paste(picture, (left + _MARGIN, top))
            pen.text((left, top + height // 2 - 6), names[r][c], fill=(0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _some(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)[:count]]


def _keep_key(out: Path, name: str, key: dict[str, object]) -> None:
    text = json.dumps({"sheet": name, **key}, indent=1)
    harness.write_atomically(out / KEYS / f"{name}.json", text + "\n")


def write_rank(
    out: Path, name: str, sets: dict[str, Tensor], seed: int, count: int = 16, side: int = 84
) -> None:
    """Write a sheet with one row for each set, and its key.

    Args:
        out: folder of the sheets.
        name: of the sheet.
        sets: pictures by name, float [n, c, h, w] in [-1, 1], at most 52 sets.
        seed: shuffles the rows and chooses the pictures, for each row other ones.
        count: pictures in a row.
        side: about how large they are shown, in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    names = sorted(sets)
    order = [names[k] for k in torch.randperm(len(names), generator=generator)]
    rows = [_pixels(_some(sets[which], count, generator), side) for which in order]
    letters = _LETTERS[: len(order)]
    labels = [[letter] + [""] * (len(row) - 1) for letter, row in zip(letters, rows, strict=True)]
    _sheet(rows, labels, out / f"{name}.png")
    key = {"kind": "rank", "seed": seed, "pictures": count}
    _keep_key(out, name, {**key, "rows": dict(zip(letters, order, strict=True))})


def write_mix(
    out: Path,
    name: str,
    made: Tensor,
    real: Tensor,
    seed: int,
    output: str,
    count: int = 64,
    side: int = 84,
) -> None:
    """Write a sheet with real and made pictures, half and half, and its key.

    Args:
        out: folder of the sheets.
        name: of the sheet; it should not say whose pictures these are.
        made: float [n, c, h, w] in [-1, 1].
        real: float [m, c, h, w].
        seed: chooses and shuffles the pictures.
        output: whose pictures these are, for the key.
        count: pictures of the sheet.
        side: about how large they are shown, in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    half = count // 2
    both = torch.cat([_some(made, half, generator), _some(real, half, generator)])
    order = torch.randperm(2 * half, generator=generator)
    pictures = _pixels(both[order], side)
    rows = [pictures[k : k + _COLUMNS] for k in range(0, len(pictures), _COLUMNS)]
    numbers = [str(k) for k in range(len(pictures))]
    labels = [numbers[k : k + _COLUMNS] for k in range(0, len(numbers), _COLUMNS)]
    _sheet(rows, labels, out / f"{name}.png")
    found = [k for k, place in enumerate(order.tolist()) if place < half]
    key = {"kind": "mix", "seed": seed, "pictures": 2 * half, "output": output}
    _keep_key(out, name, {**key, "made": found})


# ------------------------------------------------------------------------------------------ answers


def _stored(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["sheets"] if path.is_file() else []


def add_answer(out: Path, name: str, answer: str, path: Path = ANSWERS) -> None:
    """Store one look at a sheet, beside the sheet's key.

    Args:
        out: folder of the sheets.
        name: of the sheet.
        answer: letters from most to least real, or numbers taken for made, with commas.
        path: file of the answers.

    Raises:
        harness.UsageError: if there is no such sheet or the answer does not fit it.
    """
    file = out / KEYS / f"{name}.json"
    if not file.is_file():
        raise harness.UsageError(f"{file} is missing: give the folder and the name of a sheet.")
    key = json.loads(file.read_text(encoding="utf-8"))
    if key["kind"] == "rank":
        look: list = [letter for letter in answer if letter.isalpha()]
        if sorted(look) != sorted(key["rows"]):
            raise harness.UsageError(
                f"{name}={answer}: give each of the letters {''.join(key['rows'])} once."
            )
    else:
        words = [word.strip() for word in answer.split(",") if word.strip()]
        if not all(word.isdecimal() and int(word) < key["pictures"] for word in words):
            raise harness.UsageError(
                f"{name}={answer}: give numbers from 0 to {key['pictures'] - 1} with commas."
            )
        look = sorted({int(word) for word in words})
    sheets = _stored(path)
    same = [sheet for sheet in sheets if {k: v for k, v in sheet.items() if k != "looks"} == key]
    if same:
        same[0]["looks"].append(look)
    else:
        sheets.append({**key, "looks": [look]})
    # One sheet a line: easy to read, and easy to compare between two versions.
    lines = ",\n".join(json.dumps(sheet) for sheet in sheets)
    harness.write_atomically(path, f'{{"sheets": [\n{lines}\n]}}\n')


# ------------------------------------------------------------------------------------- what is said


def ranks(of: str, path: Path = ANSWERS) -> dict[str, list[float]]:
    """Ranks by eye of the sets of one picture set: one number a look, 0 most real, 1 least.

    Args:
        of: start of the names of the sheets.
        path: file of the answers.
    """
    found: dict[str, list[float]] = {}
    for sheet in _stored(path):
        if sheet["kind"] != "rank" or not sheet["sheet"].startswith(f"{of}_"):
            continue
        for look in sheet["looks"]:
            for place, letter in enumerate(look):
                rank = place / max(1, len(look) - 1)
                found.setdefault(sheet["rows"][letter], []).append(rank)
    return found


def eye(of: str, path: Path = ANSWERS) -> dict[str, float]:
    """Mean rank by eye of each set of pictures; empty if nobody looked."""
    return {name: float(np.mean(values)) for name, values in ranks(of, path).items()}


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson 1927)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, count: int) -> Share:
        """Share of `right` among `count`."""
        z, p = 1.96, right / count
        middle = p + z * z / (2 * count)
        half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
        scale = 1 + z * z / count
        return cls(p, (middle - half) / scale, (middle + half) / scale)

    def __str__(self) -> str:
        """The text for a table."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mixes(path: Path = ANSWERS) -> dict[tuple[str, str], Share]:
    """How often made and real pictures were told apart, by sheet and output, over all looks."""
    found = {}
    for sheet in _stored(path):
        if sheet["kind"] == "mix":
            made, count = set(sheet["made"]), sheet["pictures"]
            right = sum(count - len(made ^ set(look)) for look in sheet["looks"])
            found[sheet["sheet"], sheet["output"]] = Share.of(right, count * len(sheet["looks"]))
    return found


def mix_table(path: Path = ANSWERS) -> str:
    """Table of the mixed sheets; a half of the calls right: nobody can tell them apart."""
    rows = [[name, output, str(share)] for (name, output), share in mixes(path).items()]
    return summaries.table(["sheet", "pictures", "share of right calls"], rows)


def main() -> None:
    """Store answers."""
    parser = argparse.ArgumentParser(description="Store what was seen on anonymous sheets.")
    parser.add_argument("out", type=Path, help="folder of the sheets")
    parser.add_argument("--rank", action="append", default=[], help="SHEET=LETTERS, best first")
    parser.add_argument("--made", action="append", default=[], help="SHEET=NUMBERS taken for made")
    parser.add_argument("--file", type=Path, default=ANSWERS, help="file of the answers")
    arguments = parser.parse_args()
    for given in arguments.rank + arguments.made:
        name, _, answer = given.partition("=")
        add_answer(arguments.out, name, answer, arguments.file)
    print(mix_table(arguments.file))


if __name__ == "__main__":
    harness.run_program(main)
