"""Models on disk: saved folders, and programs exported for serving."""
