"""The only part of Minuet that keeps root: typed requests in, processes in sandboxes out.

The launcher process imports the standard library, the kernel and the sealing
of secrets, nothing else, because every shim is forked from it and shares its
memory. `client.py` is the one file for its callers, who live on asyncio.
"""
