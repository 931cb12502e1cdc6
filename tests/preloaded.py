"""What the server of forked processes imports once: all that a command may need, never to be collected."""

import gc
import importlib
import os
import pkgutil

import captum.attr
import PIL.Image
import pytest
import tifffile

import cli
import features
import mil

for package in (cli, features, mil):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
PIL.Image.preinit()
os.fsync = lambda _: None  # see `_without_flushing` in conftest.py
gc.freeze()
