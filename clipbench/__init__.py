"""clipbench: few-shot CLIP benchmarks, many fine-tuning methods around a frozen CLIP under one exact protocol."""

__version__ = "0.2.0"
