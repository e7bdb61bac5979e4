"""The version of TPO Lab, in the one place that the package, the wheel and the reports read."""

__version__ = "0.1.0"
