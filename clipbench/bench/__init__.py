"""The grid of cells: plan, run, launchers and records."""
