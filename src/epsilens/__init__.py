"""What adversarial robustness does to the explanations of a convolutional network."""

__version__ = "0.3.0.dev0"
