"""How many samples a script gives its network."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

_IMAGE_DIMENSIONS = 3  # of one image in a list of them, as detectors take it; views of a batch have more


def samples_in(inputs: Any, drawn: int = 0) -> int:
    """Samples in what a network is given: as many as its loader has `drawn`, where a list or a dimension is as long.

    Else the length of a list of images, or the first dimension of the first tensor that has one. The second dimension
    counts too, for recurrent networks that have the sequence first.
    """
    shapes = [leaf.shape for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    first = inputs[0] if inputs and isinstance(inputs[0], (list, tuple)) else ()
    listed = len(first) if all(isinstance(one, Tensor) for one in first) else 0
    if drawn and (drawn == listed or any(drawn in shape[:2] for shape in shapes)):
        return drawn
    images = listed and all(one.dim() <= _IMAGE_DIMENSIONS for one in first)
    return listed if images else int(shapes[0][0]) if shapes else 0
