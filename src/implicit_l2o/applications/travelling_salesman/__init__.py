"""Tours through all cities from contexts alone, learned from solutions through a relaxation of the travelling salesman."""

from implicit_l2o.applications.travelling_salesman.baselines import CostTourTask as CostTourTask
from implicit_l2o.applications.travelling_salesman.baselines import Floor as Floor
from implicit_l2o.applications.travelling_salesman.baselines import PyEPOTourTask as PyEPOTourTask
from implicit_l2o.applications.travelling_salesman.data import TourData as TourData
from implicit_l2o.applications.travelling_salesman.task import TourTask as TourTask
