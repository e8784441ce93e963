# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send CPython's e-mail samples through an LMTP proxy, read them back over IMAP, compare byte for byte."""

from __future__ import annotations

from mailflow.errors import MailflowError
from mailflow.flow import Config, run
from mailflow.placement import placement, shard_of, writers
from mailflow.report import Report, Row
from mailflow.samples import Sample, SampleSet, find_samples

__all__ = [
    "Config",
    "MailflowError",
    "Report",
    "Row",
    "Sample",
    "SampleSet",
    "find_samples",
    "placement",
    "run",
    "shard_of",
    "writers",
]
