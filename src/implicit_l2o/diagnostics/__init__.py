"""Diagnostics: how contractive is `T`, how good is the gradient, and do the hypotheses of the JFB theorem hold?"""

from implicit_l2o.diagnostics.contraction import contraction_estimate as contraction_estimate
from implicit_l2o.diagnostics.contraction import lipschitz_lower_bound as lipschitz_lower_bound
from implicit_l2o.diagnostics.descent import DescentReport as DescentReport
from implicit_l2o.diagnostics.descent import descent_conditions as descent_conditions
from implicit_l2o.diagnostics.gradient import GradientReport as GradientReport
from implicit_l2o.diagnostics.gradient import gradient_report as gradient_report
