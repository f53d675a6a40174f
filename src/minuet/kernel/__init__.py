"""Words shared by every room: ids, names, errors, conditions, retry, clock, secrets.

Nothing here performs I/O or knows a framework, so each file can be imported
by the smallest process (the launcher) as well as by the largest (the server).
"""
