"""What CUDA's kernels hold while they index: positions of masks, sorted indices, running sums."""

import pytest
import torch
from made_storages import made
from torch import Tensor

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

ROWS, COLUMNS = 4, 6
COUNT = ROWS * COLUMNS
WHOLE, FLOAT = 8, 4


def traced(function, *shapes, backward=False, places=False):
    """The trace of a function; with `places` its tensors say where they are."""
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(memories=recorder if places else None), recorder:
        given = [recorder.move(torch.empty(shape), "input").requires_grad_(backward) for shape in shapes]
        out = function(*given)
        if backward:
            out.backward(torch.empty_like(out))
        recorder.mark("end")
    return trace


def rows(value: Tensor, count: int) -> Tensor:
    return value.new_zeros(count, dtype=torch.long)


def test_a_mask_becomes_positions_in_every_dimension() -> None:
    trace = traced(lambda x: x.masked_select(x > 0), (ROWS, COLUMNS), backward=True)
    assert made(trace, "masked_select") == [COUNT * FLOAT, 2 * COUNT * WHOLE]
    assert made(trace, "masked_select") == made(
        traced(lambda x: x.masked_select(x[:1] > 0), (ROWS, COLUMNS)), "masked_select"
    )
    assert made(traced(lambda x: x.sum().masked_select(x.sum() > 0), (ROWS, COLUMNS)), "masked_select") == [
        FLOAT,
        WHOLE,
    ]


def test_scattering_by_a_mask_counts_along_it() -> None:
    counted = COUNT * WHOLE
    assert made(traced(lambda x: x.masked_scatter_(x > 0, x.clone()), (ROWS, COLUMNS)), "masked_scatter_") == [counted]
    trace = traced(lambda x: x.masked_scatter((x[:, :1] > 0).expand_as(x), x.t()), (ROWS, COLUMNS))
    assert made(trace, "masked_scatter") == [COUNT * FLOAT, counted, COUNT, COUNT * FLOAT]


@pytest.mark.parametrize(
    ("function", "count", "more"),
    [
        (lambda x: x[x > 0], COUNT, []),
        (lambda x: x[x[:, 0] > 0], ROWS, []),
        (lambda x: x[rows(x, 9)], 9, []),
        (lambda x: x[rows(x, 9)[:, None], rows(x, 3)], 27, []),
        (lambda x: x[rows(x, 9)].sum(), 9, [9 * COLUMNS * FLOAT]),  # a gradient that is one number everywhere
        (lambda x: x.view(2, 2, COLUMNS)[rows(x, 9), :, rows(x, 9)], 9, [COUNT * FLOAT]),  # its gradient permuted
    ],
)
def test_the_gradient_of_what_was_indexed_is_added_up_by_sorted_indices(function, count, more) -> None:
    trace = traced(function, (ROWS, COLUMNS), backward=True)
    assert made(trace, "index_put_") == [4 * count * WHOLE, 2 * count * WHOLE, *more]


def written(place, values):
    def write(x: Tensor) -> Tensor:
        x[place(x)] = values(x)
        return x

    return write


@pytest.mark.parametrize(
    ("write", "sizes"),
    [
        (written(lambda x: x > 0, lambda _: 0.0), []),
        (written(lambda x: x > 0, lambda x: x.flatten().clone()), [2 * COUNT * WHOLE]),
        (written(lambda x: x[:, 0] > 0, lambda x: x[0].clone()), [ROWS * WHOLE]),
        (written(lambda x: rows(x, 9), lambda x: x[:1].clone()), []),
        (lambda x: x.index_put_((rows(x, 9),), x[:1].clone(), accumulate=True),
         [4 * 9 * WHOLE, 2 * 9 * WHOLE, 9 * COLUMNS * FLOAT]),
    ],
)  # fmt: skip
def test_writing_holds_positions_of_a_mask_and_sorts_where_it_adds(write, sizes) -> None:
    assert made(traced(write, (ROWS, COLUMNS)), "index_put_") == sizes


@pytest.mark.parametrize(("number", "sizes"), [(lambda _: 0.0, []), (lambda x: x.max(), [2 * COUNT * WHOLE])])
def test_a_number_of_the_host_is_filled_in_and_one_on_the_card_written_to_positions(number, sizes) -> None:
    def write(x: Tensor) -> Tensor:
        return written(lambda y: y > 0, lambda _: number(x.detach()))(x * 2)

    trace = traced(write, (ROWS, COLUMNS), backward=True, places=True)
    assert made(trace, "index_put_") == sizes
    assert made(trace, "index_put") == [COUNT * FLOAT]  # the gradient, which is zero there


def test_four_dimensions_of_positions_take_more_than_sorting() -> None:
    trace = traced(lambda x: x[x > 0], (2, 2, 2, 2), backward=True)
    assert made(trace, "index_put_") == [5 * 16 * WHOLE, 2 * 16 * WHOLE]
