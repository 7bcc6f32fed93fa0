"""Comparing two runs: what they were set to, who took part, what was said and done, and what it cost.

Everything here is a function of two runs' tables and manifests; nothing changes them.
"""
