"""6. Certificates: can this inference be trusted? Measures, rules that label them, bounds, and a report per batch."""

from implicit_l2o.certificates.base import AbstractMeasure as AbstractMeasure
from implicit_l2o.certificates.base import AbstractRule as AbstractRule
from implicit_l2o.certificates.base import Certificate as Certificate
from implicit_l2o.certificates.base import CertificateReport as CertificateReport
from implicit_l2o.certificates.base import Inference as Inference
from implicit_l2o.certificates.base import Label as Label
from implicit_l2o.certificates.base import certify as certify
from implicit_l2o.certificates.bounds import BanachBound as BanachBound
from implicit_l2o.certificates.bounds import BanachEstimate as BanachEstimate
from implicit_l2o.certificates.bounds import DavisYinDistance as DavisYinDistance
from implicit_l2o.certificates.calibration import Calibration as Calibration
from implicit_l2o.certificates.calibration import Threshold as Threshold
from implicit_l2o.certificates.calibration import calibrate as calibrate
from implicit_l2o.certificates.calibration import certificates_from_json as certificates_from_json
from implicit_l2o.certificates.calibration import certificates_to_json as certificates_to_json
from implicit_l2o.certificates.measures import ConstraintViolation as ConstraintViolation
from implicit_l2o.certificates.measures import FixedPointResidual as FixedPointResidual
from implicit_l2o.certificates.measures import Objective as Objective
from implicit_l2o.certificates.measures import ProximalResidual as ProximalResidual
from implicit_l2o.certificates.measures import RelativeDataFidelity as RelativeDataFidelity
from implicit_l2o.certificates.measures import Sparsity as Sparsity
from implicit_l2o.certificates.measures import TotalVariation as TotalVariation
