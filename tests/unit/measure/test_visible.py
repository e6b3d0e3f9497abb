import pytest

from vramfit.errors import NoUsableGpu
from vramfit.measure.visible import is_ordered_by_bus, visible_entry

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


@pytest.mark.parametrize(
    ("visible", "index", "entry"),
    [
        (None, 1, "1"),
        ("2,0", 0, "2"),
        ("2, 0", 1, "0"),
        (f"3,{UUID}", 1, UUID),
        ("MIG-GPU-8932f937/1/0", 0, "MIG-GPU-8932f937/1/0"),
        ("GPU-8932", 0, "GPU-8932"),
    ],
)
def test_entries(visible, index, entry):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_entry(index, environment) == entry


@pytest.mark.parametrize(("visible", "index"), [("", 0), ("-1", 0), ("0", 1), ("0,-1,1", 1), ("none", 0)])
def test_hidden_devices_are_not_there(visible, index):
    with pytest.raises(NoUsableGpu, match="change or unset it"):
        visible_entry(index, {"CUDA_VISIBLE_DEVICES": visible})


def test_order():
    assert is_ordered_by_bus({"CUDA_DEVICE_ORDER": "pci_bus_id"})
    assert not is_ordered_by_bus({})
