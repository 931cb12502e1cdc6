"""What the server of forked processes imports once: all that a command may need, never to be collected."""

import atexit
import gc
import importlib
import io
import os
import pkgutil
import weakref

import captum.attr
import PIL.Image
import pytest
import sklearn.cluster
import sklearn.decomposition
import tifffile
import timm
import torch.nested._internal.nested_tensor
import torch.utils.serialization.config
import torchvision
from matplotlib.figure import Figure
from typer.testing import CliRunner

import cli
import cli.main
import features
import mil
from mil.report.template import _environment

for package in (cli, features, mil):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
PIL.Image.preinit()
cli.main.command()
for arguments in (["--help"], ["protocol", "list"]):  # typer imports more as it reads and shows
    CliRunner().invoke(cli.main.app, arguments)
for name in _environment().list_templates(["html"]):
    _environment().get_template(name)
figure = Figure()
figure.add_subplot().set(title="fonts", yscale="log")
for kind in ("png", "svg"):
    figure.savefig(io.BytesIO(), format=kind)
# At its end, every process would unregister the libraries' operations one by one.
for finalizer in list(weakref.finalize._registry):
    finalizer.atexit = False


SERVER = os.getpid()


def end_at_once():
    """Take no module of the server down: to do so is slow, and some of them say what they left."""
    if os.getpid() == SERVER:
        os._exit(0)


atexit.register(end_at_once)
os.fsync = lambda _: None  # see `_without_flushing` in conftest.py
gc.freeze()
