"""``python -m sarcomil`` is the ``mil`` command; the library is ``import mil``."""
