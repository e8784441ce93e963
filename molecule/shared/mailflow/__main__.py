# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as ``python molecule/shared/mailflow`` or, with molecule/shared on the path, ``python -m mailflow``."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mailflow.cli import main

sys.exit(main())
