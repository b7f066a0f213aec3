"""Many trainings on one card: a resident process holds a base, and computes the gradients of all who
ask at a time in one pass of a fixed shape.

Who is in a pass is scheduling, not recipe: a pass always has the same shape, each training has a
slot of it, and nothing that is computed for a slot reads another. Each training is a job of its own
as ever; it hands over its adapter's weights and some records, and is given a loss and gradients.
``S`` is the number of slots, ``T`` the tokens of one, ``P`` the numbers of one adapter.
"""
