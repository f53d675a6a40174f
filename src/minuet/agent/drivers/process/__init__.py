"""Runs workloads as sandboxed processes of one machine, through the launcher and its shims.

`driver.py` is the port's implementation; `artifacts.py` fetches what is run,
`follow.py` watches one instance, `readiness.py` asks it from outside, and
`diagnosis.py` says in the catalogue's words what is wrong with one that is not ready.
"""

from minuet.agent.drivers.process.driver import ProcessDriver

__all__ = ["ProcessDriver"]
