"""Errors of running a bundle.

EncoderError        texts can't be turned into vectors; the message says who must act and how
  BundleError       the bundle is damaged, incomplete or of another make: fetch or make it again
  ProviderError     the asked-for device can't be used: mend its driver, or allow another
"""


class EncoderError(Exception):
    """Texts can't be turned into vectors; the message names the cause and the remedy."""


class BundleError(EncoderError):
    """A file of the bundle is missing, damaged or of another make; whoever installed it must replace it."""


class ProviderError(EncoderError):
    """The execution provider that was asked for is not usable here; the operator must mend it or ask for another."""
