"""The demo pictures: 6,000 from Fashion-MNIST, 28 x 28 pixels, grey, 10 classes of 600."""

from __future__ import annotations

import hashlib
from pathlib import Path

SHA256 = "ab8124a7dbec93655cda288e5a3915177f865a54b278849dd12cb71e71e55236"
"""Digest of the file with the pictures; the same as in README.md beside it."""


def demo_path() -> Path:
    """Return the path of the included demo pictures, an .npz with `images`, `labels`, `categories`.

    Fashion-MNIST (c) 2017 Zalando SE, MIT.

    Example:
        >>> demo_path().name
        'fashion_mnist_6k.npz'
    """
    return Path(__file__).parent / "fashion_mnist_6k.npz"


def checked(path: Path) -> Path:
    """Return the path if the file is the one that was packaged, byte for byte.

    Args:
        path: of the demo pictures.

    Raises:
        ValueError: if it is missing or has changed.

    Example:
        >>> checked(demo_path()) == demo_path()
        True
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"the demo pictures, {path}, cannot be read ({error.strerror}); install noisewise again"
        ) from error
    if found != SHA256:
        raise ValueError(
            f"the demo pictures, {path}, are not the ones that were packaged (SHA-256 "
            f"{found[:16]}..., not {SHA256[:16]}...); install noisewise again"
        )
    return path
