"""What every test shares: one thread, a fixed seed, reproducible hypothesis examples.

Shapes and types of the package are checked at run time by jaxtyping's import hook (`addopts` in pyproject.toml).
"""

import os
from pathlib import Path

# Before torch is imported: with more threads than free cores, small tensor operations wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

import runtime_types

# The same examples in every run, however loaded the machine is. To search for new ones:
#   pytest --hypothesis-profile=explore
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    os.environ.pop("PL_GLOBAL_SEED", None)  # what an experiment of an earlier test has set


@pytest.fixture(autouse=True)
def _runtime_types(request: pytest.FixtureRequest) -> None:
    """Under the mark `bad_input` the run-time type check is off: the errors are those that a user sees."""
    runtime_types.begin_test(check=request.node.get_closest_marker("bad_input") is None)


@pytest.fixture(scope="session")
def tntp_folder() -> Path:
    """The folder of the public road networks: what TNTP_FOLDER names, else `shared/data/tntp` beside the repository."""
    root = Path(__file__).parents[1]
    named = os.environ.get("TNTP_FOLDER")
    for folder in [Path(named)] if named else [root / "shared/data/tntp", root.parent / "shared/data/tntp"]:
        if (folder / "SiouxFalls/SiouxFalls_net.tntp").is_file():
            return folder
    pytest.skip("the road networks are not here: name their folder by TNTP_FOLDER")
