"""A round of asking the agents: what they are given, how their proposals are weighed and ranked,
and how they did before.
"""
