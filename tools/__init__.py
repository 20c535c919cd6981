"""What makes the shipped data of clipbench; run from a checkout, in no wheel."""
