"""The demo pictures: 6,000 from Fashion-MNIST, 28 x 28 pixels, grey, 10 classes of 600."""

from __future__ import annotations

from pathlib import Path


def demo_path() -> Path:
    """Return the path of the included demo pictures, an .npz with `images`, `labels`, `categories`.

    Fashion-MNIST (c) 2017 Zalando SE, MIT.

    Example:
        >>> demo_path().name
        'fashion_mnist_6k.npz'
    """
    return Path(__file__).parent / "fashion_mnist_6k.npz"
