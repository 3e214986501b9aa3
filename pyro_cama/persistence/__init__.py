"""Models elsewhere: saved folders, programs exported for serving, and models of DoWhy."""
