"""What the server of forked processes imports once: all that the command needs, never to be collected."""

import gc

import pytest
import tifffile

import cli.main
import features.extraction.extract
import mil.finetune.per_fold
import mil.learning.crossval
import mil.report.gather

gc.freeze()
