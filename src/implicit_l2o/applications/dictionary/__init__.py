"""Signals recovered from few measurements by a learned transform in which they are sparse: the implicit dictionary."""

from implicit_l2o.applications.dictionary.baselines import LeastSquares as LeastSquares
from implicit_l2o.applications.dictionary.baselines import LinearRegression as LinearRegression
from implicit_l2o.applications.dictionary.baselines import SparseRecovery as SparseRecovery
from implicit_l2o.applications.dictionary.data import DictionaryData as DictionaryData
from implicit_l2o.applications.dictionary.data import Sizes as Sizes
from implicit_l2o.applications.dictionary.dense import DenseTask as DenseTask
from implicit_l2o.applications.dictionary.model import ImplicitDictionary as ImplicitDictionary
from implicit_l2o.applications.dictionary.task import DictionaryTask as DictionaryTask
