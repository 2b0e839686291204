"""Features of pictures for Frechet and kernel distances: whoever has the weights of Inception or CLIP hands them in.

Inception is read as the TorchScript file that is widely published for this (`inception-2015-12-05.pt`: pictures
uint8 in, 2,048 features out, shrinking included), which runs in torch's own interpreter and can reach no Python. A
folder is a CLIP model of transformers. Distances over different features do not compare.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.discriminator.similarity import Similarity
from models.measures import Floats
from shared.errors import ModelError

Features = Callable[[Tensor], Floats]  # uint8 (n, 3, height, width) -> (n, width)
INCEPTION: Final = "inception-2015-12-05.pt"  # looked for beside the catalogue, in weights/


def features_from(place: Path, device: torch.device) -> Features:
    """The features of a TorchScript file or of a CLIP model's folder; raises ModelError."""
    if place.is_dir():
        similarity = Similarity(place, device)
        return lambda pictures: np.asarray(similarity.features(pictures.float() / 255).double().cpu().numpy())
    try:
        network = torch.jit.load(str(place), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as wrong:
        reason = str(wrong).strip().split("\n")[0]
        raise ModelError(f"{place}: no TorchScript file that gives features: {reason}") from None

    def features(pictures: Tensor) -> Floats:
        with torch.inference_mode():
            found: Tensor = network(pictures.to(device), return_features=True)
        return np.asarray(found.flatten(1).double().cpu().numpy())

    return features
