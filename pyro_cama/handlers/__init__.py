"""Effects and contexts around Pyro programs; they know no model."""
