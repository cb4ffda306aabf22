"""Contract checks: run them on your own operators, splittings and backward modes, as the package's tests do on its own.

Each check raises an `AssertionError` that names the law, the sample and the figures.

Example:
    >>> import torch, implicit_l2o as il2o
    >>> from implicit_l2o.testing import check_backward, check_set
    >>> check_set(il2o.Simplex(), torch.randn(4, 5, dtype=torch.float64))
    >>> check_backward(il2o.Implicit(), exact=True)
"""

from implicit_l2o.testing.operators import check_batch as check_batch
from implicit_l2o.testing.operators import check_function as check_function
from implicit_l2o.testing.operators import check_linear_operator as check_linear_operator
from implicit_l2o.testing.operators import check_monotone as check_monotone
from implicit_l2o.testing.operators import check_prox as check_prox
from implicit_l2o.testing.operators import check_set as check_set
from implicit_l2o.testing.operators import check_smooth as check_smooth
from implicit_l2o.testing.pipeline import check_backward as check_backward
from implicit_l2o.testing.pipeline import check_splitting as check_splitting
