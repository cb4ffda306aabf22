"""What a measured result is written down with: its interval over seeds, the machine, a file that is whole."""

from implicit_l2o.report.record import Interval as Interval
from implicit_l2o.report.record import interval as interval
from implicit_l2o.report.record import machine as machine
from implicit_l2o.report.record import write_json as write_json
from implicit_l2o.report.record import write_text as write_text
