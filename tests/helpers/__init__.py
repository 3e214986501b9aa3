"""Random graphs, double precision, small models and patched names: what several test files share."""
