import pytest

from vramfit.errors import UsageError
from vramfit.jobs.levers.registry import kinds, names
from vramfit.jobs.levers.text import describe_levers, in_order, parse_levers
from vramfit.records import Lever


def test_levers_that_cost_nothing_come_first():
    order = ["free", "time"]
    ranks = [order.index(kind.cost) for kind in kinds()]
    assert ranks == sorted(ranks)
    assert len(set(names())) == len(names())


@pytest.mark.parametrize(
    ("text", "levers"),
    [
        ("none", ()),
        ("", ()),
        ("half_upsample", (Lever(name="half_upsample"),)),
        ("half-upsample, amp=bf16", (Lever(name="half_upsample"), Lever(name="amp", setting="bf16"))),
        ("amp", (Lever(name="amp", setting="fp16"),)),
        ("recompute=block", (Lever(name="recompute", setting="block"),)),
        (
            "recompute=module@stage4.0+stage4.1,channels_last=off",
            (
                Lever(name="channels_last", setting="off"),
                Lever(name="recompute", setting="module", modules=("stage4.0", "stage4.1")),
            ),
        ),
    ],
)
def test_a_list_of_levers_reads_as_it_is_written(text, levers):
    assert parse_levers(text) == levers
    assert parse_levers(describe_levers(levers)) == levers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warp_drive", "is not a lever; use one of expandable_segments"),
        ("recompute=everything", "cannot be 'everything'; use selective or block or module"),
        ("half_upsample@stage4.0", "applies to the whole job"),
        ("amp=fp16,amp=off", "amp is given twice; give it once"),
        ("recompute=block,recompute=module", "recompute is given twice; name the modules"),
        ("recompute==block", "write NAME, NAME=SETTING"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(text, says):
    with pytest.raises(UsageError, match=says):
        parse_levers(text)


def test_equal_choices_make_equal_records():
    block = Lever(name="recompute", setting="block", modules=("b",))
    module = Lever(name="recompute", setting="module", modules=("a",))
    assert in_order([module, block]) == in_order([block, module]) == (block, module)
