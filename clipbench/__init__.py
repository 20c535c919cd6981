"""clipbench: few-shot CLIP benchmarks, many fine-tuning strategies around a frozen CLIP under one exact protocol."""

__version__ = "0.1.0"
