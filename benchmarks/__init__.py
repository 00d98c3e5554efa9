"""Measurements on real networks and pictures: one script a question."""
