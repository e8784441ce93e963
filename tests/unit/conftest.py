# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of hypothesis for all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: the machine may be busy with the lab's virtual machines.
settings.register_profile("nfsmail", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nfsmail")
