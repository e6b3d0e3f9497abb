"""What a figure depends on besides the job: card, driver and versions."""

import os
import platform
from collections.abc import Mapping

from vramfit.measure.device import Device
from vramfit.records import Machine

# The newer name wins where both are set, as in torch.
_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def read_machine(device: Device | None = None, environment: Mapping[str, str] | None = None) -> Machine:
    """This machine; without a device its card and driver are None."""
    import torch

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return Machine(
        card=device.name if device else None,
        driver=device.driver_version if device else None,
        driver_model=device.driver_model if device else None,
        cuda=torch.version.cuda,
        cudnn=None if cudnn is None else str(cudnn),
        torch=torch.__version__,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        allocator_settings=_settings_in(os.environ if environment is None else environment),
    )


def _settings_in(environment: Mapping[str, str]) -> str:
    """The caching allocator's settings as the environment gives them, empty for the defaults."""
    return next((environment[name] for name in _SETTINGS if environment.get(name)), "")
