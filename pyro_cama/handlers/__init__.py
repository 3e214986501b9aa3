"""Effects and contexts around Pyro programs, and the lock that these hold; they know no model."""

from pyro_cama.handlers.threads import exclusive

__all__ = ["exclusive"]
