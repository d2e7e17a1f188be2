"""`coldstream worker` with an encoder of hashes: what is tried here is delivery, and a life begins a second sooner.

A text that holds the simulator's word for it breaks the encoder, as one of a bundle never may.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder import HashingEncoder
from streams import app
from streams.commands.main import main

POISON = "unembeddable"


class Encoder(HashingEncoder):
    """Hashes, and fails on the word."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any(POISON in text for text in texts):
            raise ValueError("this text breaks the encoder")
        return super().encode(texts)


if __name__ == "__main__":
    app.open_bundle = lambda *_args, **_kwargs: Encoder(64)  # type: ignore[assignment,attr-defined]
    main(["worker"])
