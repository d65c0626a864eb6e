"""torch.nn, as far as attention goes."""
from . import attention, functional
