"""What fine-tuning changed: how far parameters and features moved from their pretrained values."""
