"""Reading a run: conversations, search, the story of a message, and what other tools take.

Everything here is a function of a run's tables, journal and recordings; nothing changes them.
"""
