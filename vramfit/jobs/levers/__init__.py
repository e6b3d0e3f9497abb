"""Levers: settings that make a job fit, one module and one class each.

`kind` says what a lever can do, `registry` finds them, `text` reads and writes them, and `apply` uses them on a job.
To add one: a module here, a row in docs/levers.md and a test. Nothing here loads torch before a lever is used on a job.
"""
