from made_records import make_profile, make_trial

from vramfit.records import Loading, Schedule
from vramfit.report.plans import shared_remarks


def test_a_remark_of_some_cases_names_them():
    paced = [Schedule(loading=Loading(worker_images_per_s=rate, workers=1)) for rate in (20.0, 5000.0)]
    one, two, three = (make_profile(schedule=schedule) for schedule in (paced[0], paced[1], paced[1]))
    said = shared_remarks([("small", one), ("wide", two), ("tall", three)])
    assert [line.split(" Times:")[0] for line in said[:2]] == ["small:", "wide, tall:"]
    assert [line.split(":")[0] for line in said[2:]] == ["Predicted"]


def test_nothing_is_said_of_a_batch_that_is_in_no_row():
    trials = tuple(make_trial(batch, host_bound=batch == 1) for batch in (1, 2, 6))
    waits = "At batch 1 the card waits for the host"
    assert not any(waits in line for line in shared_remarks([("small", make_profile(6, trials=trials))]))
    assert any(line.startswith(waits) for line in shared_remarks([("small", make_profile(1, trials=trials))]))
