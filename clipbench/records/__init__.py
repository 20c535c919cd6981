"""What came out: cells, their keys and the store of records; no torch."""
