"""Shared by all tests: no network, one thread, no deadlines on a busy machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from hypothesis import settings

settings.register_profile("outlay", deadline=None)
settings.load_profile("outlay")
