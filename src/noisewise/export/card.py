"""The README.md of an exported folder: a header for the Hub, what it is, how to use it, how good.

The header is YAML as the Hub reads it. Where the training pictures lie is nobody's business: the
card has their number and their fingerprint, no path.
"""

from __future__ import annotations

import json
import re
from typing import Any

from noisewise.export.source import Source
from noisewise.pictures.alpha import colours
from noisewise.sizes import sides, spelled
from noisewise.training.models.model_card import calls_in_words, closing_parts, how_distilled
from noisewise.training.models.models import Generator

SAMPLES = "samples.png"
# Names of licences that the Hub knows; any other is written as "other" with its name.
_KNOWN_LICENSES = frozenset(
    "agpl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause cc cc-by-2.0 cc-by-3.0 cc-by-4.0 "
    "cc-by-nc-4.0 cc-by-nc-nd-4.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 "
    "creativeml-openrail-m gpl gpl-2.0 gpl-3.0 lgpl-3.0 mit mpl-2.0 openrail openrail++ other "
    "unknown unlicense wtfpl zlib".split()
)
_MISSING = "The authors gave no licence: ask them before you use it."


def hub_card(source: Source, place: str) -> str:
    """The card of a folder with a model of noisewise.

    Args:
        source: what is exported.
        place: name of the folder, for the code if it does not go to the Hub.
    """
    where = source.repo or place
    rgba = "" if source.config.alpha == "none" else ", straight RGBA"
    code = [
        "from noisewise.export import HubModel",
        "",
        f"model = HubModel.from_pretrained({json.dumps(where)})  # or the path of this folder",
        f"pictures = model.sample(16, seed=0)  # float32 {_shape(source, 16)}, from -1 to 1{rgba}",
        'model.grid(64).save("pictures.png")',
    ]
    needs = "noisewise huggingface_hub"
    return _card(source, "noisewise", needs, code, _options(source))


def pipeline_card(source: Source, place: str) -> str:
    """The card of a pipeline folder for diffusers.

    Args:
        source: what is exported.
        place: name of the folder, for the code.
    """
    code = [
        "import torch",
        "from noisewise.export import NoisewisePipeline",
        "",
        f"pipe = NoisewisePipeline.from_pretrained({json.dumps(place)})  # the path of this folder",
        "pictures = pipe(batch_size=16, generator=torch.Generator().manual_seed(0)).images",
        'pictures[0].save("picture.png")',
    ]
    options = [
        "* No code lies in this folder: the classes come from noisewise, and nothing is trusted.",
    ]
    if source.config.classes:
        options.append(f"* One class only: `pipe(16, class_labels={_a_class(source)})`.")
    return _card(source, "diffusers", "noisewise diffusers", code, options)


def header(source: Source, library: str) -> str:
    """The YAML at the top of the card, between lines of dashes.

    A JSON text is a YAML text too, so names are written as JSON.
    """
    lines = ["---", f"library_name: {library}"]
    if source.license.lower() in _KNOWN_LICENSES:
        lines.append(f"license: {source.license.lower()}")
    elif source.license:
        lines += ["license: other", f"license_name: {json.dumps(_slug(source.license))}"]
    else:
        lines.append("license: unknown")
    lines += ["pipeline_tag: unconditional-image-generation", "tags:"]
    tags = ["noisewise", "pixel-diffusion", "image-generation"]
    tags.append("one-step" if isinstance(source.model, Generator) else "diffusion")
    lines += [f"- {tag}" for tag in tags]
    return "\n".join([*lines, "---", ""])


def _card(source: Source, library: str, needs: str, code: list[str], options: list[str]) -> str:
    config, run = source.config, source.info
    colour = colours(config.channels)
    what = f"{colour} pictures of {spelled(config.size)} pixels"
    lines = [
        header(source, library),
        f"# {source.name}",
        "",
        _described(source, what, run),
        "",
        f"![64 pictures, drawn with seed 0]({SAMPLES})",
        "",
        "## Use",
        "",
        "```sh",
        f"pip install {needs}",
        "```",
        "",
        "```python",
        *code,
        "```",
        "",
        *options,
        *([""] if options else []),
        "## Licence and use",
        "",
        f"Licence: {source.license or 'unknown'}. {'' if source.license else _MISSING}".rstrip(),
        *(["", source.note] if source.note else []),
        "",
        *closing_parts(config, run),
    ]
    return "\n".join(lines)


def _described(source: Source, what: str, run: dict[str, Any]) -> str:
    if isinstance(source.model, Generator):
        return (
            f"This generator draws {what} in {calls_in_words(source.config)}. It was made with "
            "noisewise: a diffusion model was trained on pictures, then the generator was "
            f"distilled from it{how_distilled(run)}."
        )
    calls = source.model.sampler.calls
    return (
        f"This diffusion model draws {what} in {calls} network calls for each picture. It was made "
        "with noisewise."
    )


def _options(source: Source) -> list[str]:
    lines = []
    if source.config.classes:
        lines.append(f"* One class only: `model.sample(16, label={_a_class(source)})`.")
    if isinstance(source.model, Generator) and source.model.second_teacher() is not None:
        lines.append("* Two calls are a little better: `model.sample(16, calls=2)`.")
    return lines


def _a_class(source: Source) -> str:
    return repr(source.config.classes[0])


def _shape(source: Source, count: int) -> list[int]:
    return [count, source.config.channels, *sides(source.config.size)]


def _slug(name: str) -> str:
    """A name as the Hub takes it: small letters, digits, dots and dashes.

    Example:
        >>> _slug("My Studio's Licence 2")
        'my-studio-s-licence-2'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "named-below"
