"""Number formats and the values that flow between stages."""
