"""The PyTorch build that a card and its driver can run, and the command that installs it.

A plain `pip install torch` brings a build without CUDA on Windows. Which builds there are, and which compute
capabilities each is compiled for, is from PyTorch's release notes (2.8 and later): builds for CUDA 12.8 and 13.0 left
out everything before Turing, that for 12.6 has it and nothing since Blackwell. A driver runs every build of its own
major version of CUDA that its minor version reaches, and 12.6's from 12.0 on.
"""

from dataclasses import dataclass

Version = tuple[int, int]

_INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True)
class CudaBuild:
    """A build of PyTorch by its name in the index: the driver it needs, and the compute capabilities it is for."""

    name: str
    driver_cuda: Version
    oldest: Version
    newest: Version


# The newest first.
BUILDS = (
    CudaBuild("cu130", driver_cuda=(13, 0), oldest=(7, 5), newest=(12, 1)),
    CudaBuild("cu128", driver_cuda=(12, 8), oldest=(7, 5), newest=(12, 0)),
    CudaBuild("cu126", driver_cuda=(12, 0), oldest=(5, 0), newest=(9, 0)),
)


def install_command(capability: Version | None, driver_cuda: Version | None) -> str | None:
    """The command that installs the newest build for a card and its driver; None where the driver is too old.

    Args:
        capability: the card's compute capability; None is taken for one that every build has.
        driver_cuda: the newest CUDA that the driver runs, such as (12, 8); None is taken for the newest.

    >>> install_command((8, 6), (12, 9))
    'pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cu128'

    """
    card, driver = capability or (8, 0), driver_cuda or BUILDS[0].driver_cuda
    for build in BUILDS:
        if driver >= build.driver_cuda and build.oldest <= card <= build.newest:
            return f"pip install --force-reinstall torch torchvision --index-url {_INDEX}/{build.name}"
    return None
