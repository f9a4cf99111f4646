"""From stages to a plan: stages are checked, fused into groups, and fitted to the machine. A plan consists of values;
nothing is started.
"""
