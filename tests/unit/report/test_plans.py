from made_records import make_profile

from vramfit.records import Loading, Schedule
from vramfit.report.plans import shared_remarks


def test_a_remark_of_some_cases_names_them():
    paced = [Schedule(loading=Loading(worker_images_per_s=rate, workers=1)) for rate in (20.0, 5000.0)]
    one, two, three = (make_profile(schedule=schedule) for schedule in (paced[0], paced[1], paced[1]))
    said = shared_remarks([("small", one), ("wide", two), ("tall", three)])
    assert [line.split(" Times:")[0] for line in said[:2]] == ["small:", "wide, tall:"]
    assert [line.split(":")[0] for line in said[2:]] == ["Predicted"]
