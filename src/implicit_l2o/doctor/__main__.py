"""`python -m implicit_l2o.doctor`."""

import argparse
import sys

from implicit_l2o.doctor import main

parser = argparse.ArgumentParser(
    prog="python -m implicit_l2o.doctor",
    description="Look at this installation and solve a small problem. The exit status is 1 if a problem was found.",
    allow_abbrev=False,
)
parser.add_argument("--json", action="store_true", help="everything as JSON")
sys.exit(main(as_json=parser.parse_args().json))
