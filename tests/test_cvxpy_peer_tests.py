"""The benchmark that runs cvxpylayers' own tests: a test that fails otherwise than it should counts as failed."""

import xml.etree.ElementTree as ElementTree

import pytest
from benchmarks.cvxpy_peer_tests import DIFFERENT, _case


def case(name: str, tag: str | None, message: str = "") -> dict[str, str]:
    element = ElementTree.Element("testcase", name=name)
    if tag is not None:
        ElementTree.SubElement(element, tag, message=message)
    return _case(element)


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_known_by_how_the_test_fails(name: str) -> None:
    expected, reason = DIFFERENT[name]
    assert case(name, "failure", f"Failed: {expected}.") == {"name": name, "outcome": "different", "reason": reason}
    assert case(name, "failure", "ZeroDivisionError: division by zero")["outcome"] == "failed"
    assert case(name, None)["outcome"] == "passed"


def test_other_tests_may_not_fail() -> None:
    found = case("test_lasso", "failure", "AssertionError: Failed: DID NOT RAISE SolverError")
    assert (found["outcome"], found["reason"]) == ("failed", "AssertionError: Failed: DID NOT RAISE SolverError")
    assert case("test_lasso", "skipped", "needs a GPU") == {
        "name": "test_lasso", "outcome": "skipped", "reason": "needs a GPU"
    }  # fmt: skip
