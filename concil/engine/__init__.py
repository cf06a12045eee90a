"""The front door of the library: Engine and the stores it opens."""
