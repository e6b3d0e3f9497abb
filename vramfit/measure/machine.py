"""What a figure depends on besides the job: card, driver and versions."""

import os
import platform
from collections.abc import Mapping

from vramfit.allocator_environment import given_options
from vramfit.measure.device import Device
from vramfit.records import Machine


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
        allocator_settings=given_options(os.environ if environment is None else environment),
    )
