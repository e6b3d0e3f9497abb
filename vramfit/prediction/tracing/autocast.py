"""CUDA's autocast rules for tensors that say they are on a CPU.

Storage-less tensors can only run a backward pass as CPU tensors, and a CPU's autocast casts other operations than
CUDA's. Within `cuda_autocast` the CPU's kernels are replaced by kernels that follow CUDA's rules, so nesting, the
cache of cast weights and recomputation stay torch's own.

The lists are those of PyTorch's documentation, "CUDA Op-Specific Behavior", with the overloads of
aten/src/ATen/autocast_mode.h. What runs in half precision on both devices keeps torch's own kernel, cache and all.
"""

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from vramfit.prediction.tracing.address_space import has_no_memory
from vramfit.prediction.tracing.cuda_kernels import AMPERE, cuda_kernels
from vramfit.prediction.tracing.meta_kernels import FUSED
from vramfit.prediction.tracing.op_schema import operation
from vramfit.prediction.tracing.tensor_trees import tensors_given

# Run in the autocast dtype on CUDA, and have no kernel (or another one) in the CPU's autocast.
HALF = """
    _cudnn_rnn _convolution convolution addmv addr mv chain_matmul einsum linalg_multi_dot _thnn_fused_lstm_cell
    _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell _scaled_dot_product_flash_attention
    cudnn_convolution cudnn_convolution_transpose
""".split()  # noqa: SIM905  # a list of 120 quoted names is harder to read
FLOAT = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Scalar pow.Tensor_Scalar
    pow.Tensor_Tensor softplus layer_norm native_layer_norm group_norm rms_norm frobenius_norm.dim nuclear_norm
    nuclear_norm.dim cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss
    kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
    linalg_matrix_sqrth upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_trilinear3d upsample_bicubic2d _upsample_bicubic2d_aa
""".split()  # noqa: SIM905  # a list of 120 quoted names is harder to read
FLOAT_RESULT = """
    prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm
    linalg_matrix_norm.str_ord sum sum.dim_IntList
""".split()  # noqa: SIM905  # a list of 120 quoted names is harder to read
WIDEST = """
    addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
""".split()  # noqa: SIM905  # a list of 120 quoted names is harder to read
# Reductions that take their dtype from another overload: the dtype goes last.
FLOAT_OVERLOAD = {
    "norm.Scalar": "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype",
}

# Their products are cast one by one, by kernels that cache what they cast of a weight.
_IN_PARTS = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}

# Kept, for a step that is traced is told of a card's.
_autocast_dtype = torch.get_autocast_dtype
_CPU_KEY = torch._C.DispatchKey.AutocastCPU
Kernel = Callable[..., Any]


@contextmanager
def cuda_autocast(capability: tuple[int, int] = AMPERE, uncast: Collection[str] = ()) -> Iterator[None]:
    """Within it, autocast of CPU tensors follows CUDA's rules, and so do operations whose parts differ on CUDA.

    `capability` is the compute capability of the card whose kernels are chosen. `uncast` names operations, such as
    `upsample_nearest2d`, that autocast is to leave alone, as older versions of torch did.
    """
    library = torch.library.Library("aten", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _register(library, capability, frozenset(uncast))
        yield
    finally:
        library._destroy()


def _register(library: torch.library.Library, capability: tuple[int, int], uncast: frozenset[str]) -> None:
    kernels = {name: kernel for name, kernel in _kernels().items() if name not in uncast}
    for name, kernel in kernels.items():
        library.impl(name, kernel, "AutocastCPU", allow_override=True)
    on_cuda = (registered("AutocastCUDA") or set(kernels)) - uncast
    for name in registered("AutocastCPU") - on_cuda - set(kernels):
        library.impl(name, torch.library.fallthrough_kernel, "AutocastCPU", allow_override=True)
    for name, kernel in cuda_kernels(capability).items():
        library.impl(name, _on_card(operation(name), kernel), "AutogradCPU", allow_override=True)
    for name, kernel in FUSED.items():
        if exists(name):
            library.impl(name, kernel, "CPU", allow_override=True)


def _on_card(op: Any, kernel: Kernel) -> Kernel:
    """A card's kernel for tensors without memory; those of the host are computed there, as torch composes it."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        traced = any(map(has_no_memory, tensors_given(args, kwargs)))
        return kernel(*args, **kwargs) if traced else op.decompose(*args, **kwargs)

    return chosen


def registered(key: str) -> set[str]:
    """Names of the operations that have a kernel of their own for a dispatch key, such as `sum.dim_IntList`."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return {name.removeprefix("aten::") for name in names if name.startswith("aten::")}


def _kernels() -> dict[str, Kernel]:
    kernels: dict[str, Kernel] = {}
    for names, make in ((HALF, _half), (FLOAT, _float), (FLOAT_RESULT, _float_result), (WIDEST, _widest)):
        kernels |= {name: make(operation(name)) for name in names if exists(name) and name not in _IN_PARTS}
    kernels |= {
        name: _float_last(operation(name), operation(to)) for name, to in FLOAT_OVERLOAD.items() if exists(name)
    }
    return kernels


def exists(name: str) -> bool:
    """Whether this version of torch has the operation."""
    return bool(torch._C._dispatch_has_kernel(f"aten::{name}"))


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_CPU_KEY))


def _eligible(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _cast(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda value: value.to(dtype) if _eligible(value) else value, values)


def _half(op: Kernel) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            args, kwargs = _cast((args, kwargs), _autocast_dtype("cpu"))
            return op(*args, **kwargs)

    return kernel


def _float(op: Kernel) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            args, kwargs = _cast((args, kwargs), torch.float32)
            return op(*args, **kwargs)

    return kernel


def _float_result(op: Kernel) -> Kernel:
    fused = _FUSED_SOFTMAX.get(str(op))

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            if not _eligible(args[0]) or _given_dtype(op, args, kwargs):
                return op(*args, **kwargs)
            if fused is not None and args[0].dtype == torch.float16:
                return fused(args[0], args[1], True)
            return op(*args, **{**kwargs, "dtype": torch.float32})

    return kernel


def _given_dtype(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if kwargs.get("dtype") is not None:
        return True
    names = [argument.name for argument in op._schema.arguments]
    position = names.index("dtype")
    return len(args) > position and args[position] is not None


# CUDA's softmax of half precision writes float32 in one kernel, where a CPU first makes a float32 copy.
_FUSED_SOFTMAX: dict[str, Kernel] = {
    "aten.softmax.int": torch.ops.aten._softmax.default,
    "aten.log_softmax.int": torch.ops.aten._log_softmax.default,
}


def _float_last(op: Any, to: Kernel) -> Kernel:
    defaults = [argument.default_value for argument in op._schema.arguments]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            # The overload with a dtype has no defaults of its own.
            return to(*args, *defaults[len(args) + len(kwargs) :], **kwargs, dtype=torch.float32)

    return kernel


def _widest(op: Kernel) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            wide = any(_eligible(value) and value.dtype == torch.float32 for value in tree_leaves((args, kwargs)))
            args, kwargs = _cast((args, kwargs), torch.float32 if wide else _autocast_dtype("cpu"))
            return op(*args, **kwargs)

    return kernel
