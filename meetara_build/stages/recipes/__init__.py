"""The recipes of the stages, a model each: apart from the stages, so that a plan needs none of
their libraries."""
