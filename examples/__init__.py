"""Pipelines that are not the reference one, brought in by the documented interface alone."""
