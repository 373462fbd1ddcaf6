"""Integrations: budgets, schedules, controllers, teachers, the meter and the report inside trainers that people already have.

They sit on top of everything and nothing imports them; each is imported where it is used, since it brings its trainer along:
``outlay.integrations.torch``, ``outlay.integrations.transformers`` (and with it TRL), ``outlay.integrations.trl`` for teachers, and
``outlay.integrations.lightning``.
"""
