"""Equilibria of zero-sum games with n actions, predicted from contexts; the truth is exact."""

from implicit_l2o.applications.matrix_games.baselines import PayoffNetTask as PayoffNetTask
from implicit_l2o.applications.matrix_games.data import MatrixGameData as MatrixGameData
from implicit_l2o.applications.matrix_games.task import BlackBoxTask as BlackBoxTask
from implicit_l2o.applications.matrix_games.task import FixedPointTask as FixedPointTask
from implicit_l2o.applications.matrix_games.task import PayoffTask as PayoffTask
