"""Priors: the probabilities of symbols, learned beside a quantizer.

A quantizer layer calls ``begin`` of a prior, whatever its class (`ohmq.models.priors.tables.TablePrior`). For coding a prior is
frozen to integer tables (`ohmq.model_files.freeze`), so that nothing between the bits and the symbols is floating point.
"""

from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import TabulatedPrior

__all__ = ["ContextPrior", "FactorizedPrior", "StaticPrior", "TabulatedPrior"]
