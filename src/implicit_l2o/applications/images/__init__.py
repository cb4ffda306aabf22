"""Images by implicit networks of the published sizes: contraction proven or estimated, or a monotone operator."""

from implicit_l2o.applications.images.architecture import CIFAR10 as CIFAR10
from implicit_l2o.applications.images.architecture import CIFAR10_AUGMENTED as CIFAR10_AUGMENTED
from implicit_l2o.applications.images.architecture import DIGITS as DIGITS
from implicit_l2o.applications.images.architecture import MNIST as MNIST
from implicit_l2o.applications.images.architecture import SVHN as SVHN
from implicit_l2o.applications.images.architecture import AbstractArchitecture as AbstractArchitecture
from implicit_l2o.applications.images.architecture import DeepNet as DeepNet
from implicit_l2o.applications.images.architecture import ResidualNet as ResidualNet
from implicit_l2o.applications.images.architecture import ShallowNet as ShallowNet
from implicit_l2o.applications.images.data import Cifar10Data as Cifar10Data
from implicit_l2o.applications.images.data import SvhnData as SvhnData
from implicit_l2o.applications.images.estimated import Estimated as Estimated
from implicit_l2o.applications.images.latent import AbstractContraction as AbstractContraction
from implicit_l2o.applications.images.model import ImageClassifier as ImageClassifier
from implicit_l2o.applications.images.monotone import Monotone as Monotone
from implicit_l2o.applications.images.proven import Proven as Proven
from implicit_l2o.applications.images.task import ImageTask as ImageTask
