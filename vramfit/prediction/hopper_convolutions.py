"""What cuDNN takes on Hopper while a convolution runs. Bytes.

Read off the allocations of seventeen networks on an H200 (torch 2.11, cuDNN 9.19, half precision and float32), each
beside the operation that made it; `benchmarks/gpu_jobs.py` says how near the whole comes, on networks that were not
looked at. Hopper's kernels work in NHWC order:

- in NCHW order input and output are copied, and the weights where a kernel is larger than 1x1: exact to the
  allocator's rounding for those kernels and for strided ones. Of 1x1 kernels of stride 1 small images alone are copied
  (64 pixels or fewer, or an odd number up to 289), and images of channels that are no multiple of 8, for the weights'
  gradient;
- in NHWC order nothing is;
- the weights' gradient is summed in float32: of a 1x1 kernel once for every sample, up to the size of the copies;
  elsewhere a few megabytes, of weights that are small themselves;
- depthwise kernels need nothing.

Known limitation: other architectures choose other kernels, and were not looked at so. A gradient of fewer than eight
channels was seen to take the copies twice, once.
"""

from math import prod

from vramfit.prediction.trace_records import Convolution, OperationRecord
from vramfit.units import MIB

_SMALL_IMAGE, _ODD_IMAGE = 64, 289
_ALIGNED = 8
_SUMMED_WEIGHTS = MIB // 2  # weights of more take no part sums
_MOST_SUMS_BYTES = 4 * MIB
_SUM_BYTES = 4


def workspaces(operation: OperationRecord) -> dict[int, int]:
    """Event number -> bytes of one convolution: where it runs, and backward where each gradient is made."""
    convolution = operation.convolution
    if convolution is None or convolution.groups == convolution.input_shape[1] > 1:
        return {}
    image = _of_image(convolution, operation.dtype)
    if not convolution.weight_gradient:  # a forward pass, or backward through frozen weights
        return {operation.position: image}
    weights = {operation.position: _of_weights(convolution, operation.dtype)}
    # The weights' gradient, or that of the bias, is the last event before the operation's end.
    return {operation.position - 1: image, **weights} if convolution.image_gradient else weights


def _of_image(convolution: Convolution, dtype: str) -> int:
    if convolution.channels_last:
        return 0
    images = convolution.image_bytes(dtype)
    if max(convolution.weight_shape[2:]) > 1:
        return images + prod(convolution.weight_shape) * convolution.item_bytes(dtype)
    if max(convolution.stride, default=1) > 1:
        return images
    pixels = prod(convolution.input_shape[2:])
    copied = pixels <= _SMALL_IMAGE or (pixels % 2 == 1 and pixels <= _ODD_IMAGE)
    return images if copied else 0


def _of_weights(convolution: Convolution, dtype: str) -> int:
    weights, images = prod(convolution.weight_shape), convolution.image_bytes(dtype)
    sums = _SUM_BYTES * convolution.input_shape[0] * weights
    small_sums = min(sums, _MOST_SUMS_BYTES) if weights < _SUMMED_WEIGHTS else 0
    if convolution.channels_last:
        return small_sums
    plain = max(convolution.weight_shape[2:]) == 1 == max(convolution.stride, default=1)
    if not plain:
        return _of_image(convolution, dtype) + small_sums
    channels = convolution.weight_shape[:2]
    if any(channel % _ALIGNED for channel in channels):
        return images * (2 if min(channels) < _ALIGNED else 1)
    return max(_of_image(convolution, dtype), min(sums, images))
