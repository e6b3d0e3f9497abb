"""The landmark job must stay a straight line in the batch: a loop over samples in its loss once made it none."""

import pytest

from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import AffineTrace


@pytest.mark.parametrize("stride", [4, 1])
def test_two_traces_of_the_landmark_job_lie_on_one_line_with_a_third(stride):
    job = landmark_job(LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 64), heatmap_stride=stride))
    line = AffineTrace.through(trace_step(job, 2), trace_step(job, 3))
    assert line is not None
    direct = trace_step(job, 5)
    foretold = line.at(5)
    assert foretold.events == direct.events
    assert [s.size_bytes for s in foretold.storages] == [s.size_bytes for s in direct.storages]
