# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error that this package raises on purpose."""

from __future__ import annotations


class MailflowError(Exception):
    """The run cannot go on; the text says why and what to do."""
