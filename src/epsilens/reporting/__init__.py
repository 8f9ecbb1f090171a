"""Rows in, evidence out: statistics, tables, figures, one HTML page. Knows no tensors and no models."""
