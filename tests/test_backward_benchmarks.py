"""The benchmarks of the backward modes, on few iterations."""

import pytest
from benchmarks.jfb_memory import peak_of_a_step


@pytest.mark.parametrize("mode", ["JFB", "Implicit, GMRES"])
@pytest.mark.filterwarnings("ignore::implicit_l2o.ConvergenceWarning")  # the solves are cut on purpose
def test_the_peak_of_a_step_does_not_depend_on_the_depth(mode):
    assert peak_of_a_step(mode, 30) <= 1.05 * peak_of_a_step(mode, 10)


def test_the_peak_of_unrolling_does():
    assert peak_of_a_step("Unrolled", 30) > 1.5 * peak_of_a_step("Unrolled", 10)
